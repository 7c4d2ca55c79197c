"""Teach ``natural`` what drawn heads of photographs take, ``natural.covers``, and faces of 112 px,
``natural.sharp``.

    python bench/natural_covers.py WORK [--side 512] [--pictures 400] [--steps 1200]
        [--people 1600] [--save]
    python bench/natural_covers.py WORK --side 256 --steps 1500 [--save]

A head that shows pictures of 512 px, and lines that foretell by features at 16 px what a picture
will be like; a head that shows pictures of 256 px. Heads see the network's features at half that
size and are taught by what the whole network shows, reduced: pixels and their edges. Drawn people
alone. WORK, another for each side, keeps the pictures, and sheets to look at: the whole network's
above, the head's below.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from natural_fast import drawn_styles, edges, told_by
from PIL import Image
from torch import Tensor

from ppfr_ops.imaging import silhouettes
from ppfr_ops.imaging.geometry import align
from ppfr_ops.imaging.portraits import skin_colour, yaw
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods import portrait
from ppfr_ops.methods.natural import files
from ppfr_ops.methods.natural.generator import EARLY, Generator
from ppfr_ops.methods.natural.looks import DRAW, on_grid
from ppfr_ops.methods.natural.network import DEPTH, Head, _unwavelet, pixels
from ppfr_ops.methods.natural.quality import plain, sound
from ppfr_ops.methods.portrait import PortraitHeads

CHANNELS = {512: (32, 128), 256: (64, 256)}
"""By side of the picture: channels of the head and of the features. Whole pictures of 256 px are
those of 512 px reduced: the head for 256 px is softer, which is not seen in crops of 112 px."""
CROP, BATCH, HELD = {512: 64, 256: 48}, 8, 20
"""Of the features, side of what a step sees; how many a step; pictures held out."""
EDGES = 2.0
"""Weight of edges, beside pixels."""
TURNS, RIDGE, MOST = 0.18, 3e3, 1.5
"""Of heads, one deviation of ``yaw``; of the lines; and of ``plain`` and ``sound``, more than which
counts as that."""


@torch.no_grad()
def pictures(work: Path, count: int, side: int) -> None:
    """Features, pictures, and the style that shapes them, kept in files."""
    if (work / "styles.npy").is_file():
        return
    generator, rng = Generator("cpu"), torch.Generator().manual_seed(11)
    network, styles = generator.large, []
    shape = (count, side // 2, side // 2, CHANNELS[side][1])
    kept = np.lib.format.open_memmap(work / "features.npy", "w+", np.int16, shape)
    shown = np.lib.format.open_memmap(work / "pictures.npy", "w+", np.uint8, (count, side, side, 3))
    for row in range(count):
        each = drawn_styles(generator, rng)
        each = each[:DEPTH] if row % 2 else each  # as in photographs, or with a style around
        seen = network.features(each[None], side // 2)
        kept[row] = seen[0].permute(1, 2, 0).contiguous().view(torch.int16).numpy()
        shown[row] = pixels(F.avg_pool2d(network(each[None], seen), 1024 // side))
        styles.append((each[11] - generator.looks.mean) / 0.5)
        if row % 50 == 49:
            print(row + 1, "pictures", flush=True)
    np.save(work / "styles.npy", torch.stack(styles).numpy())


def features(seen: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(seen)).view(torch.bfloat16).permute(0, 3, 1, 2)


def shown(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def read(head: Head, work: Path, step: int) -> None:
    """Figures of the pictures held out, in bfloat16 as they are drawn, and a sheet."""
    quick = Head(len(head.a.bias), len(head.m.bias))
    quick.load_state_dict(head.state_dict())
    quick.bfloat16().to(memory_format=torch.channels_last)
    seen, wanted = (
        np.load(work / f"{name}.npy", mmap_mode="r") for name in ("features", "pictures")
    )
    styles, psnr, sharp, sheet = torch.from_numpy(np.load(work / "styles.npy")), [], [], []
    for row in range(HELD):
        y = quick(features(seen[row : row + 1]), styles[row : row + 1])
        made = ((y[0] + 1) * 127.5).clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
        one, other = wanted[row].astype(float), made.astype(float)
        psnr.append(10 * np.log10(255**2 / np.square(one - other).mean()))
        sharp.append(
            [
                float(edges(torch.from_numpy(p).permute(2, 0, 1)[None]).abs().mean())
                for p in (one, other)
            ]
        )
        sheet.append(np.vstack([wanted[row], made]))
    Image.fromarray(np.hstack(sheet[:6])).save(work / f"head-{step:05d}.png")
    told = f"PSNR {np.mean(psnr):.2f} dB (worst {min(psnr):.1f}), edges {np.mean(sharp, 0)}"
    print(f"{step} steps: {told}", flush=True)


@torch.no_grad()
def begun(seen: np.ndarray, wanted: np.ndarray, styles: Tensor) -> Head:
    """A head with the scales of the network's next layer, whose last step is the best by least
    squares."""
    side = wanted.shape[1]
    head, generator = Head(*CHANNELS[side]), Generator("cpu")
    layer = 3 * (side // 2).bit_length() - 8
    affine, offset = (
        part[layer].float() for part in (generator.large.affine, generator.large.offset)
    )
    head.m.weight.copy_(affine * 0.5)
    head.m.bias.copy_(offset + affine @ generator.looks.mean)
    head.m2.weight.zero_()
    head.m2.bias.fill_(1.0)
    rng, x, y = torch.Generator().manual_seed(1), [], []
    for row in range(HELD, min(HELD + 120, len(styles))):
        places = torch.randperm(side * side // 4, generator=rng)[:300]
        scaled = features(seen[row : row + 1]).float() * head.m(styles[row])[None, :, None, None]
        hidden = F.leaky_relu(head.b(F.leaky_relu(head.a(scaled), 0.2)), 0.2)
        x.append(torch.cat([scaled, hidden], 1).flatten(2)[0].T[places])
        # Four pixels to their sum, and by rows, columns and both, as the network has them.
        four = shown(wanted[row : row + 1]).unflatten(2, (-1, 2)).unflatten(4, (-1, 2))[0]
        four = four.permute(1, 3, 0, 2, 4).flatten(0, 1).flatten(2)[places]
        y.append(four)
    a, b = torch.cat(x).double(), torch.cat(y).flatten(1).double()
    a = torch.cat([a, torch.ones(len(a), 1, dtype=a.dtype)], 1)
    own = a.T @ a
    weights = torch.linalg.solve(own + 1e-4 * own.diagonal().mean() * torch.eye(len(own)), a.T @ b)
    # Per pixel to per band: what the inverse of the head's last step makes of it.
    eye = torch.eye(12)[:, :, None, None]
    bands = _unwavelet(eye).flatten(1).double()  # band to the 12 numbers of four pixels
    found = weights @ torch.linalg.inv(bands)
    parts = found[:-1].T[:, :, None, None].split([len(head.m.bias), len(head.a.bias)], 1)
    head.lin.weight.copy_(parts[0])
    head.o.weight.copy_(parts[1])
    head.lin.bias.copy_(found[-1])
    head.o.bias.zero_()
    return head


def teach(work: Path, steps: int, rate: float) -> dict[str, Tensor]:
    torch.manual_seed(512)
    rng, seen, wanted = (
        np.random.default_rng(512),
        *(np.load(work / f"{name}.npy", mmap_mode="r") for name in ("features", "pictures")),
    )
    styles = torch.from_numpy(np.load(work / "styles.npy"))
    head, crop = begun(seen, wanted, styles), CROP[wanted.shape[1]]
    optimiser = torch.optim.AdamW(
        [
            {"params": [v], "size": float(v.detach().square().mean().sqrt()) + 1e-3}
            for v in head.parameters()
        ],
        rate,
        weight_decay=0.0,
    )
    read(head, work, 0)
    mean = {k: v.detach().clone() for k, v in head.state_dict().items()}
    for step in range(steps):
        for group in optimiser.param_groups:
            share = 0.01 + 0.495 * (1 + np.cos(np.pi * step / steps))
            group["lr"] = rate * group["size"] * min(1, (step + 1) / 50) * share
        rows = rng.integers(HELD, len(styles), BATCH)
        x, y = rng.integers(0, seen.shape[1] - crop + 1, (2, BATCH))
        cut = [
            (r, slice(b, b + crop), slice(a, a + crop)) for r, a, b in zip(rows, x, y, strict=True)
        ]
        double = [
            (r, slice(2 * b.start, 2 * b.stop), slice(2 * a.start, 2 * a.stop)) for r, b, a in cut
        ]
        target = shown(np.stack([wanted[each] for each in double]))
        made = head(features(np.stack([seen[each] for each in cut])).float(), styles[rows])
        # At the rim a crop does not see what lies beyond.
        made, target = made[..., 2:-2, 2:-2], target[..., 2:-2, 2:-2]
        loss = (made - target).abs().mean() + EDGES * (edges(made) - edges(target)).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            for name, value in head.state_dict().items():
                mean[name].lerp_(value, 1 / min(step + 1, 100))
        if (step + 1) % 50 == 0:
            print(step + 1, round(127.5 * float(loss.detach()), 3), flush=True)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            averaged = Head(*CHANNELS[wanted.shape[1]])
            averaged.load_state_dict(mean)
            read(averaged, work, step + 1)
            torch.save(mean, work / "head.pt")
    return mean


@torch.inference_mode()
def foretold(work: Path, count: int) -> dict[str, Tensor]:
    """Lines on features at 16 px, by a ridge, and how well they tell those that were held out."""
    path, rng = work / "foretold.npz", np.random.default_rng(12)
    natural = PortraitHeads().with_secrets({"identity-key": rng.bytes(32)})._natural
    generator, seen, found = natural.generator(), [], []
    for _ in range(0 if path.is_file() else count):
        draw = rng.standard_normal(natural.draw_size).astype(np.float32)
        turned = float(np.clip(rng.normal(0, TURNS), -0.35, 0.35))
        look = draw[None, :DRAW]
        who, steps = [next(natural.strangers(draw))], portrait._steps(turned)
        styles = portrait._styles(natural, who, look, steps)[0]
        early = generator.synthesis.features(styles[None], EARLY)
        picture, features = generator.drawn(styles, seen=early)
        marks, score = generator.landmarks(picture)
        if not score:
            continue
        silhouette = silhouettes.in_one_piece(generator.silhouette(features), marks)
        crop = align(picture, marks[None])[0]
        least = [min(each, MOST) for each in (plain(crop), sound(crop, marks, score))]
        skin = np.log(skin_colour(crop) + 10).mean()
        whole = np.log(generator.looks.whole(features))
        found.append([whole, *least, silhouette[:2].mean(), yaw(marks), skin])
        seen.append(on_grid(early.float()).numpy())
    if found:
        np.savez(path, seen=np.stack(seen), found=np.array(found, np.float32))
    x, y = (torch.from_numpy(np.load(path)[name]) for name in ("seen", "found"))

    held = torch.arange(len(x)) % 5 == 0
    weights, middle = told_by(x[~held], y[~held], RIDGE)
    told = x[held] @ weights.T + middle
    r = [np.corrcoef(told[:, k], y[held][:, k])[0, 1] for k in range(y.shape[1])]
    print(f"{len(x)} pictures, held out: r {np.round(r, 3)}, astray {(told - y[held]).std(0)}")
    weights, middle = told_by(x, y, RIDGE)
    return {"told": weights, "told.middle": middle}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("work", type=Path)
    asked.add_argument("--side", type=int, choices=CHANNELS, default=512)
    asked.add_argument("--pictures", type=int, default=400)
    asked.add_argument("--steps", type=int, default=1200)
    asked.add_argument("--rate", type=float, default=1e-2)
    asked.add_argument("--people", type=int, default=1600)
    asked.add_argument("--save", action="store_true", help="what lies in WORK, into the package")
    given = asked.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    given.work.mkdir(exist_ok=True)
    if not given.save:
        pictures(given.work, given.pictures, given.side)
        teach(given.work, given.steps, given.rate)
        if given.side == 512:
            foretold(given.work, given.people)
        return
    taught = torch.load(given.work / "head.pt", weights_only=True)
    if given.side == 256:
        files.save(files.SHARP, taught)
        return
    kept = {f"head.{name}": value for name, value in taught.items()}
    files.save(files.COVERS, kept | foretold(given.work, given.people))


if __name__ == "__main__":
    main()
