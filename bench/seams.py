"""Does a drawn head show by its seams? A network is taught to tell photographs with a drawn head
(``--cover virtual``) from untouched ones, and another to tell those with a head that Poisson
editing (Perez et al. 2003, ``cv2.seamlessClone``) put there from another photograph.

    python bench/seams.py WORK --shared ../shared --scenes 150 --lfw 150

Taught on made scenes of drawn people and on street photographs (``group_photos``, every second
picture kept back for trying); tried besides on photographs of LFW, which are taught to nobody.
``whole``: of the head and what is around it; ``ring``: of its edge and what is around it alone,
so that who is shown, and whether behind a mask, is out of sight. What is made lies in WORK and is
not made again.
"""

import argparse
import io
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn
from virtual import Heads, photographs, scene

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.covers import HEAD
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.geometry import transforms, treat
from ppfr_ops.methods.natural import Natural

SIDE, SPAN = 160, 240.0
"""Of what a network sees, px; and how much of the template's pixels that is."""
SMALLEST = 24
KINDS = ("untouched", "drawn", "poisson")


def pictures(given: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Picture]]]:
    natural = Natural().with_secrets({"identity-key": secrets.token_bytes(32)})
    rng = np.random.default_rng(1)
    streets = [
        cell.as_py()["bytes"]
        for part in sorted((given.shared / "data" / "group_photos").glob("part-*.parquet"))
        for cell in pq.read_table(part)["image"]
    ][: given.streets]
    people = [data for _, data in photographs(given.shared, given.lfw)]
    for number in range(max(given.scenes, len(streets), len(people))):
        if number < given.scenes:
            yield f"scene-{number:04d}", lambda: scene(natural, rng, 2)[0]
        for name, files in (("street", streets), ("lfw", people)):
            if number < len(files):
                yield f"{name}-{number:04d}", lambda data=files[number]: opened(data)


def opened(data: bytes) -> Picture:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def stored(picture: Picture) -> Picture:
    """As anyone gets it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=92)
    return opened(file.getvalue())


def crops(picture: Picture, faces: Detections) -> np.ndarray:
    """Heads with what is around them, beyond the edge mirrored."""
    found = []
    for matrix in transforms(faces):
        scale = SIDE / SPAN
        wide = scale * matrix
        wide[:, 2] += SIDE / 2 - scale * np.array(HEAD[:2])
        shrunk = float(np.hypot(*wide[0, :2]))
        soft = picture if shrunk > 0.6 else cv2.GaussianBlur(picture, (0, 0), 0.4 / shrunk)
        found.append(
            cv2.warpAffine(
                soft, wide, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
        )
    return np.array(found, np.uint8).reshape(-1, SIDE, SIDE, 3)


def poisson(
    picture: Picture, faces: Detections, other: Picture, heads: Detections, rng: np.random.Generator
) -> Picture:
    """Heads of another photograph in the places of these."""
    pad = max(picture.shape[:2])
    canvas = cv2.copyMakeBorder(picture, *[pad] * 4, cv2.BORDER_REFLECT_101)
    theirs = transforms(heads)
    for matrix in transforms(faces):
        goal = np.vstack([cv2.invertAffineTransform(matrix), [0, 0, 1]])
        goal[:2, 2] += pad
        source = np.vstack([theirs[int(rng.integers(len(theirs)))], [0, 0, 1]])
        across = (goal @ source)[:2]
        size = canvas.shape[1::-1]
        head = cv2.warpAffine(other, across, size, borderMode=cv2.BORDER_REFLECT_101)
        mask = np.zeros(canvas.shape[:2], np.uint8)
        angles = np.linspace(0, 2 * np.pi, 60)
        edge = np.stack([HEAD[0] + HEAD[2] * np.cos(angles), HEAD[1] + HEAD[3] * np.sin(angles)], 1)
        place = edge @ goal[:2, :2].T + goal[:2, 2]
        cv2.fillPoly(mask, [place.round().astype(np.int32)], 255)
        x, y, w, h = cv2.boundingRect(mask)
        if min(w, h) > 8:
            middle = (x + w // 2, y + h // 2)
            canvas = cv2.seamlessClone(head, canvas, mask, middle, cv2.NORMAL_CLONE)
    return np.ascontiguousarray(canvas[pad:-pad, pad:-pad])


def make(given: argparse.Namespace) -> None:
    given.place.mkdir(exist_ok=True, parents=True)
    heads, rng = Heads(), np.random.default_rng(2)
    before: dict[str, tuple[Picture, Detections]] = {}
    for name, opening in pictures(given):
        kind, path = name[:-5], given.place / f"{name}.npz"
        if path.exists():
            continue
        picture = opening()
        faces = heads.find([picture])[0]
        suited = [n for n, each in enumerate(treat(faces, SMALLEST)) if each == "anonymized"]
        if not suited:
            continue
        faces = faces.take(np.array(suited))
        last, before[kind] = before.get(kind), (picture, faces)
        if last is None:
            continue
        drawn, _, _ = heads(picture, faces, SMALLEST)
        blended = poisson(picture, faces, *last, rng)
        seen = [crops(stored(each), faces) for each in (picture, drawn, blended)]
        np.savez_compressed(path, **dict(zip(KINDS, seen, strict=True)))


class Teller(nn.Sequential):
    """Says how sure it is that a head was put there."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after in ((3, 16), (16, 32), (32, 64), (64, 64)):
            layers += [
                nn.Conv2d(before, after, 3, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 1)]
        super().__init__(*layers)


def tensor(some: np.ndarray, view: str) -> torch.Tensor:
    x = torch.from_numpy(some).permute(0, 3, 1, 2).float() / 127.5 - 1
    if view == "ring":
        far = (np.arange(SIDE) + 0.5 - SIDE / 2) * SPAN / SIDE
        radius = np.hypot(far / HEAD[2], far[:, None] / HEAD[3])
        x = x * torch.from_numpy((radius > 0.85).astype(np.float32))
    return x


def taught(fair: np.ndarray, made: np.ndarray, view: str, epochs: int) -> Teller:
    torch.manual_seed(1)
    x = torch.cat([tensor(fair, view), tensor(made, view)])
    y = torch.cat([torch.zeros(len(fair)), torch.ones(len(made))])
    net = Teller()
    steps = epochs * (len(x) // 32)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        if step % (len(x) // 32) == 0:
            order = torch.randperm(len(x))
        some = order[32 * (step % (len(x) // 32)) :][:32]
        given = x[some]
        if torch.rand(()) < 0.5:
            given = given.flip(3)
        loss = nn.functional.binary_cross_entropy_with_logits(net(given)[:, 0], y[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plan.step()
    return net.eval()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("place", type=Path)
    asked.add_argument("--shared", type=Path, default=Path("../shared"))
    asked.add_argument("--scenes", type=int, default=150)
    asked.add_argument("--streets", type=int, default=150)
    asked.add_argument("--lfw", type=int, default=150)
    asked.add_argument("--epochs", type=int, default=20)
    given = asked.parse_args()
    torch.set_num_threads(1)
    make(given)
    sets: dict[str, list[dict[str, np.ndarray]]] = {}
    for path in sorted(given.place.glob("*.npz")):
        number = int(path.stem[-4:])
        kind = path.stem[:-5]
        part = "lfw" if kind == "lfw" else f"{kind} {'tried' if number % 2 else 'taught'}"
        with np.load(path) as kept:
            sets.setdefault(part, []).append({name: kept[name] for name in KINDS})
    data = {
        part: {name: np.concatenate([each[name] for each in some]) for name in KINDS}
        for part, some in sets.items()
    }
    print({part: len(each["untouched"]) for part, each in data.items()})
    names = [part for part in data if part.endswith("taught")]
    for view in ("whole", "ring"):
        for kind in KINDS[1:]:
            fair, made = (
                np.concatenate([data[part][name] for part in names]) for name in (KINDS[0], kind)
            )
            net, line = taught(fair, made, view, given.epochs), f"{view:5} {kind:8}"
            for part, each in data.items():
                with torch.inference_mode():
                    low, high = (
                        torch.cat([net(x)[:, 0] for x in tensor(each[n], view).split(64)]).numpy()
                        for n in (KINDS[0], kind)
                    )
                area = float((high[:, None] > low).mean())
                right = float(((high > 0).mean() + (low <= 0).mean()) / 2)
                line += f"  {part}: AUC {area:.3f}, right {right:.3f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
