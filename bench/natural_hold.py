"""Teach ``natural`` to keep people apart, and a photo with its person: ``natural.looks``.

    python bench/natural_hold.py ../shared/models WORK [--steps 500] [--save]

Through the frozen generator, on drawn people alone, by what sface, mobileface, dlib and mfn128 make
of the pictures; faceres and all real faces stay out. WORK holds checkpoints (a run goes on from the
last one), figures of fresh people and sheets to look at; ``--save`` writes the last into the
package.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from natural_people import THRESHOLDS
from PIL import Image
from torch import Tensor

from ppfr_ops.imaging.geometry import similarity
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.natural import _OTHER, files
from ppfr_ops.methods.natural.generator import Generator
from ppfr_ops.methods.natural.looks import ATTRIBUTES, OTHERS
from ppfr_ops.methods.natural.network import STYLE
from ppfr_ops.methods.natural.quality import sound

PEOPLE, PHOTOS, BANK = 8, 2, 1500
SOFT = {"sface": 0.03, "mobileface": 0.04, "dlib": 0.004, "mfn128": 0.03}
SAME = {"sface": 0.70, "mobileface": 0.60, "dlib": 0.958, "mfn128": 0.62}
"""Two photos of a person that are no more alike than this are pulled together."""
FAR = {name: SAME[name] - THRESHOLDS[name] for name in SAME}
MIDDLE = np.array([[1, 0, -8], [0, 1, -8]], np.float32)
"""Of a picture of 128 px to a crop of 112."""
APART, STAY, BROKEN = 80.0, 2.0, 20.0
"""Weights: of strangers that are taken for one person; of how far people and photos are moved; the
same of photos that are broken."""


class Taught:
    """The generator with its two small networks, and the recognisers."""

    def __init__(self, models: Path) -> None:
        self.generator = Generator("cpu")
        self.looks = self.generator.looks
        self.parts = torch.nn.ModuleDict({"apart": self.looks.apart, "hold": self.looks.hold})
        self.moved: list[Tensor] = []
        """How far the small networks moved whom they were last asked of."""
        for part in self.parts.values():
            part.register_forward_hook(lambda _, __, out: self.moved.append(out))
        self.networks = {
            name: torch.jit.freeze(torch.jit.load(str(models / f"{name}.ts.pt")).eval())
            for name in THRESHOLDS
        }

    def somebody(self, rng: torch.Generator, woman: bool) -> Tensor:
        """A style that the method would not pass over, before people are moved apart."""
        with torch.no_grad():
            for _ in range(600):
                style = self.generator.style(torch.randn(STYLE, generator=rng).numpy())
                person = self.looks.person(style)
                if not self.looks.is_of(person, {"women": woman}) or self.looks.crowded(person):
                    continue
                if self.generator.fit(person, 1.0) >= 1:
                    break
        return style

    def photo(self, style: Tensor, rng: torch.Generator, variation: float = 1.0) -> Tensor:
        others = [
            _OTHER * self.generator.style(torch.randn(STYLE, generator=rng).numpy())
            for _ in range(OTHERS)
        ]
        draw = torch.randn(ATTRIBUTES, generator=rng)
        return self.looks.styles(self.looks.person(style), torch.stack(others), draw, variation)

    def crops(self, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Aligned, ``N x 3 x 112 x 112`` in 0..255, with gradients; and which are sound."""
        crops, _, seen = crops_of(self.generator, styles)
        good = []
        for face, points, score in seen:
            good.append(score > 0)
            if score:
                to = similarity(points)
                crop = cv2.warpAffine(face, to, (112, 112), borderMode=cv2.BORDER_REPLICATE)
                good[-1] = sound(crop, points, score) >= 1
        return crops, torch.tensor(good)

    def templates(self, crops: Tensor) -> dict[str, Tensor]:
        return {n: F.normalize(network(crops), dim=1) for n, network in self.networks.items()}


def crops_of(
    generator: Generator, styles: Tensor
) -> tuple[Tensor, Tensor, list[tuple[np.ndarray, np.ndarray, float]]]:
    """Aligned pictures of ``N x 14 x 512``, ``N x 3 x 112 x 112`` in 0..255, with gradients; their
    features at 64 px; and of each the picture, uint8, landmarks and the detector's score. Where no
    face is found, the picture's middle is taken."""
    features = generator.synthesis.features(styles.to(generator.device), 64)
    by = ((styles[:, 11] - generator.looks.mean) / 0.5).to(generator.device)
    pictures = ((generator.head(features, by) + 1) * 127.5).clamp(0, 255)
    place = torch.stack(torch.meshgrid(*[torch.arange(112.0)] * 2, indexing="xy"), -1)
    grids, seen = [], []
    for shown in pictures.detach().byte().permute(0, 2, 3, 1).cpu().numpy():
        shown = np.ascontiguousarray(shown)
        points, score = generator.landmarks(shown)
        seen.append((shown, points, score))
        matrix = similarity(points) if score else MIDDLE
        back = torch.from_numpy(cv2.invertAffineTransform(matrix)).float()
        grids.append((place @ back[:, :2].T + back[:, 2] + 0.5) / (shown.shape[0] / 2) - 1)
    grid = torch.stack(grids).to(pictures.device)
    crops = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return crops, features, seen


def loss_of(
    found: dict[str, Tensor], good: Tensor, who: Tensor, bank: dict[str, Tensor], whose: Tensor
) -> tuple[Tensor, Tensor]:
    """Same person too far apart; strangers too near: each the mean over recognisers."""
    same_pairs = (who[:, None] == who) & good[:, None] & good & ~torch.eye(len(who)).bool()
    far_pairs = (who[:, None] != who) & good[:, None] & good
    same, apart = torch.zeros(()), torch.zeros(())
    for name, x in found.items():
        cosines = x @ x.T
        lack = F.relu(SAME[name] - cosines) / FAR[name]
        same = same + (lack + lack.square())[same_pairs].mean()
        near = F.softplus((cosines - THRESHOLDS[name]) / SOFT[name])[far_pairs]
        if len(bank[name]):
            past = F.softplus((x[good] @ bank[name].T - THRESHOLDS[name]) / SOFT[name])
            near = torch.cat([near, past[who[good][:, None] != whose]])
        apart = apart + near.mean()
    return same / len(found), apart / len(found)


@torch.no_grad()
def read(taught: Taught, people: int, photos: int, seed: int, path: Path) -> None:
    """Figures and a sheet of fresh people."""
    rng = torch.Generator().manual_seed(seed)
    crops, good = [], []
    for number in range(people):
        style = taught.somebody(rng, number % 2 == 0)
        styles = torch.stack([taught.photo(style, rng) for _ in range(photos)])
        faces, sounds = taught.crops(styles)
        crops.append(faces)
        good.append(sounds)
    faces, sounds = torch.cat(crops), torch.cat(good)
    who = torch.arange(people).repeat_interleave(photos)
    far = (who[:, None] != who)[np.triu_indices(len(who), 1)]
    kept = (sounds[:, None] & sounds)[np.triu_indices(len(who), 1)]
    shown = [f"sound {sounds.float().mean():.3f}"]
    parts = [taught.templates(faces[i : i + 16]) for i in range(0, len(faces), 16)]
    for name in THRESHOLDS:
        x = torch.cat([part[name] for part in parts])
        cosines = (x @ x.T)[np.triu_indices(len(who), 1)]
        strangers, genuine = cosines[far & kept], cosines[~far & kept]
        own = torch.quantile(strangers[:1_000_000], 0.999)
        shown.append(
            f"{name}: strangers {(strangers > THRESHOLDS[name]).float().mean():.5f}, "
            f"same {genuine.mean():.3f} (sd {genuine.std():.3f}), "
            f"TAR {(genuine > own).float().mean():.3f}"
        )
    print(path.stem, "; ".join(shown), flush=True)
    rows = faces[: 16 * photos].byte().permute(0, 2, 3, 1).numpy()
    sheet = rows.reshape(-1, photos, 112, 112, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(sheet.reshape(-1, photos * 112, 3)).save(path)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("models", type=Path)
    asked.add_argument("work", type=Path)
    asked.add_argument("--steps", type=int, default=500)
    asked.add_argument("--until", type=int, help="stops there; a later call goes on")
    asked.add_argument("--rate", type=float, default=1e-3)
    asked.add_argument("--every", type=int, default=50)
    asked.add_argument("--read", type=int, default=0, help="people; reads and stops")
    asked.add_argument("--save", action="store_true")
    given = asked.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    given.work.mkdir(exist_ok=True)
    taught, last = Taught(given.models), given.work / "last.pt"
    optimiser = torch.optim.AdamW(taught.parts.parameters(), given.rate, weight_decay=1e-3)
    done, bank, whose = 0, {name: torch.zeros(0) for name in THRESHOLDS}, torch.zeros(0).long()
    if last.is_file():
        state = torch.load(last, weights_only=True)
        taught.parts.load_state_dict(state["parts"])
        optimiser.load_state_dict(state["optimiser"])
        done, bank, whose = state["done"], state["bank"], state["whose"]
    if given.read:
        return read(taught, given.read, 3, 777, given.work / f"read-{done:05d}.png")
    if given.save:
        own = {f"{k}": v for k, v in taught.parts.state_dict().items()}
        return files.save("natural.looks", files.read("natural.looks") | own, exact=True)
    begun, told = time.time(), []
    until = min(given.steps, given.until or given.steps)
    for step in range(done, until):
        rng = torch.Generator().manual_seed(100_000 + step)
        rate = (
            given.rate
            * min(1, (step + 1) / 20)
            * (0.02 + 0.49 * (1 + np.cos(np.pi * step / given.steps)))
        )
        for group in optimiser.param_groups:
            group["lr"] = float(rate)
        people = [taught.somebody(rng, number % 2 == 0) for number in range(PEOPLE)]
        taught.moved.clear()
        styles = torch.stack([taught.photo(p, rng) for p in people for _ in range(PHOTOS)])
        crops, good = taught.crops(styles)
        found = taught.templates(crops)
        who = torch.arange(PEOPLE).repeat_interleave(PHOTOS) + step * PEOPLE
        same, apart = loss_of(found, good, who, bank, whose)
        far = torch.stack([part.square().mean() for part in taught.moved]).view(-1, 2).mean(1)
        stay = far.mean()
        loss = same + APART * apart + STAY * stay + BROKEN * (far * ~good).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(taught.parts.parameters(), 1.0)
        optimiser.step()
        for name, x in found.items():
            bank[name] = torch.cat([bank[name].view(-1, x.shape[1]), x.detach()[good]])[-BANK:]
        whose = torch.cat([whose, who[good]])[-BANK:]
        told.append([float(v) for v in (same, apart, stay, good.float().mean())])
        if (step + 1) % 10 == 0:
            print(
                step + 1,
                np.round(np.mean(told[-10:], 0), 4),
                f"{time.time() - begun:.0f} s",
                flush=True,
            )
        if (step + 1) % given.every == 0 or step + 1 == until:
            state = {"parts": taught.parts.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(state | {"done": step + 1, "bank": bank, "whose": whose}, last)


if __name__ == "__main__":
    main()
