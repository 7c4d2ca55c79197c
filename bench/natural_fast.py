"""Teach ``natural`` a narrower network for ``quality=fast``: ``natural.fast``.

    python bench/natural_fast.py WORK [--steps 600] [--save] [--compare ../shared/models]

Up to 16 px it is the large network; later and in the head it has fewer channels. Those that it
keeps tell most of what the next layer makes of all of them; its weights are fitted by least
squares, layer after layer, then taught by what the large one shows: pixels and their edges. No
adversary, no recogniser; drawn people alone, nobody passed over. WORK holds checkpoints (a run goes
on from the last one) and sheets to look at; ``--save`` writes the last into the package,
``--compare`` holds both beside each other.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.imaging.edges import EdgeFaces
from ppfr_ops.imaging.look import shape
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.natural import _OTHER, files
from ppfr_ops.methods.natural.generator import EARLY, Generator, part_of
from ppfr_ops.methods.natural.looks import ATTRIBUTES, OTHERS, on_grid
from ppfr_ops.methods.natural.network import STYLE, Head, Synthesis, _head, _unwavelet
from ppfr_ops.methods.natural.steering import TURNS
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

WIDE, NARROW, HIDDEN = 512, 192, 64
"""Channels at 32 px (a quarter of them go on to 64 px), at 64 px and in the head."""
BATCH, POOL = 4, 3_000
"""Pictures of a step, and how many of the large network's there are."""
EDGES = 2.0
"""Weight of edges, beside pixels."""
LIN, RIDGE = 4.0, 1e3
"""Weight of the head's linear part, beside its hidden numbers; and of a ridge, for poses."""


def drawn_styles(generator: Generator, rng: torch.Generator) -> Tensor:
    """Of a photo of anybody, rounded as they are kept, ``14 x 512``."""
    looks = generator.looks

    def some() -> Tensor:
        return generator.style(torch.randn(STYLE, generator=rng).numpy())

    chance, person = float(torch.rand((), generator=rng)), looks.person(some())
    others = torch.stack([_OTHER * some() for _ in range(OTHERS)])
    variation = 1.0 if chance < 0.8 else 5 * (chance - 0.8)
    drawn = looks.styles(person, others, torch.randn(ATTRIBUTES, generator=rng), variation)
    return drawn.half().float()


def seen_by(net: Synthesis, styles: Tensor, number: int) -> Tensor:
    """What a pointwise kernel sees: 0 and 1 at 32 px, 2 and 3 at 64 px."""
    x = net.features(styles, 32 if number > 1 else 16)
    layer = 10 if number > 1 else 7
    for place in range(number // 2 * 2, number + 1):
        if place % 2 == 0:
            x = _unwavelet(net._scaled(x, styles, layer))
        layer += 1
        x = F.conv2d(
            net._scaled(x, styles, layer), net.kernels[9 + 2 * place], padding=1, groups=x.shape[1]
        )
        if place < number:
            x = F.conv2d(x, net.kernels[10 + 2 * place], net._bias(5 + place))
            x = net._shown(x, 5 + place)
    return x


def chosen(seen: Tensor, wanted: Tensor, count: int) -> Tensor:
    """Of the columns of ``seen`` (pixels, channels) those that tell most of ``wanted`` by a line,
    one after the other."""
    x, y = (seen - seen.mean(0)).double(), (wanted - wanted.mean(0)).double()
    kept: list[int] = []
    own, cross = x.T @ x, x.T @ y
    start = own.diagonal().clone()
    for _ in range(count):
        left = own.diagonal().clamp_min(1e-12)
        gain = cross.square().sum(1) / left
        gain[left < 1e-6 * start] = -1
        gain[kept] = -1
        best = int(gain.argmax())
        kept.append(best)
        column = own[:, best] / own[best, best]
        cross = cross - column[:, None] * cross[best]
        own = own - column[:, None] * own[best]
    return torch.tensor(sorted(kept))


def line(seen: Tensor, wanted: Tensor, ridge: float = 1e-4) -> tuple[Tensor, Tensor, float]:
    """Weights and bias of least squares, and the share of the variance that they leave."""
    x, y = seen.double(), wanted.double()
    middle, target = x.mean(0), y.mean(0)
    own = (x - middle).T @ (x - middle)
    own += ridge * own.diagonal().mean() * torch.eye(len(own), dtype=own.dtype)
    weights = torch.linalg.solve(own, (x - middle).T @ (y - target)).T
    rest = (y - target) - (x - middle) @ weights.T
    left = float(rest.square().sum() / (y - target).square().sum())
    return weights.float(), (target - weights @ middle).float(), left


def told_by(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """A ridge on standardised columns, by its dual: weights, and what is added."""
    middle, spread, mean = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    a = (x - middle) / spread
    dual = torch.linalg.solve(a @ a.T + penalty * torch.eye(len(a)), y - mean)
    weights = (a.T @ dual).T / spread
    return weights, mean - weights @ middle


@torch.no_grad()
def begun_with(generator: Generator, tensors: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The narrower network's tensors, fitted layer by layer on some drawn pictures."""
    full = Synthesis(part_of(tensors, "synthesis."), torch.float32)
    head = Head()
    head.load_state_dict(part_of(tensors, "head."))
    rng = torch.Generator().manual_seed(5)
    styles = [drawn_styles(generator, rng)[None] for _ in range(count)]
    places = {n: [torch.randperm(n * n, generator=rng)[:300] for _ in styles] for n in (32, 64)}

    def taken(what: Callable[[Tensor], Tensor], side: int = 64) -> Tensor:
        """At some places of all pictures, ``rows x channels``."""
        each = zip(styles, places[side], strict=True)
        return torch.cat([what(s).flatten(2)[0].T[p] for s, p in each])

    def sees(net: Synthesis, number: int) -> Tensor:
        return taken(lambda s: seen_by(net, s, number), 32 if number < 2 else 64)

    def by(part: nn.Linear, s: Tensor) -> Tensor:
        return part((s[:, 11] - generator.looks.mean) / 0.5)[:, :, None, None]

    def scaled(net: Synthesis, own: Head, s: Tensor) -> Tensor:
        return net.features(s, 64) * by(own.m, s)

    def early(net: Synthesis, own: Head, s: Tensor) -> Tensor:
        return F.leaky_relu(own.a(scaled(net, own, s)), 0.2) * by(own.m2, s)

    # From the last layer to the first: what the next one needs of each.
    kernels = [full.kernels[10 + 2 * i].flatten(1) for i in range(4)]
    seen = [sees(full, i) for i in range(4)]
    end = taken(lambda s: scaled(full, head, s))
    first = taken(lambda s: early(full, head, s))
    second = taken(lambda s: head.b(early(full, head, s)))
    last = F.leaky_relu(second, 0.2)
    out = last @ head.o.weight.flatten(1).T + end @ head.lin.weight.flatten(1).T
    out = out + head.o.bias + head.lin.bias
    after = chosen(last, out, HIDDEN)
    before = chosen(first, second[:, after], HIDDEN)
    ahead = head.a.weight.flatten(1)[before]
    goal = torch.cat([end @ ahead.T + head.a.bias[before], LIN * out], 1)
    ends = chosen(end, goal, NARROW)
    middle = chosen(seen[3], seen[3] @ kernels[3][ends].T, NARROW)
    groups = chosen(seen[2], seen[2] @ kernels[2][middle].T, WIDE // 4)
    bands = torch.cat([groups, (128 + 3 * groups[:, None] + torch.arange(3)).flatten()])
    wide = chosen(seen[1], seen[1] @ kernels[1][bands].T, WIDE)
    outs, ins = (wide, bands, middle, ends), (torch.arange(128), wide, groups, middle)

    found = part_of(tensors, "synthesis.")
    for layer, rows in ((9, wide), (10, bands), (11, groups), (12, middle)):
        for name in (f"affine.{layer}", f"offset.{layer}"):
            found[name] = found[name][rows].clone()
    for i in range(4):
        found[f"kernels.{9 + 2 * i}"] = found[f"kernels.{9 + 2 * i}"][ins[i]].clone()
        kernel = found[f"kernels.{10 + 2 * i}"]
        found[f"kernels.{10 + 2 * i}"] = kernel[outs[i]][:, ins[i]].clone()
        found[f"biases.{5 + i}"] = found[f"biases.{5 + i}"][:, outs[i]].clone()
    for i in range(1, 4):
        wanted = seen[i] @ kernels[i][outs[i]].T + full._bias(5 + i)[outs[i]]
        weights, bias, left = line(sees(Synthesis(found, torch.float32), i), wanted)
        print(f"layer {i}: {left:.4f} of the variance is left", flush=True)
        found[f"kernels.{10 + 2 * i}"] = weights[:, :, None, None]
        found[f"biases.{5 + i}"] = bias[None, :, None, None]
    small, net = Head(HIDDEN, NARROW), Synthesis(found, torch.float32)
    small.m.weight.copy_(head.m.weight[ends])
    small.m.bias.copy_(head.m.bias[ends])
    small.m2.weight.copy_(head.m2.weight[before])
    small.m2.bias.copy_(head.m2.bias[before])
    end = taken(lambda s: scaled(net, small, s))
    weights, bias, left = line(end, goal[:, :HIDDEN])
    small.a.weight.copy_(weights[:, :, None, None])
    small.a.bias.copy_(bias)
    patches = taken(lambda s: F.unfold(early(net, small, s), 3, padding=1))
    weights, bias, more = line(patches, second[:, after])
    small.b.weight.copy_(weights.view(small.b.weight.shape))
    small.b.bias.copy_(bias)
    last = F.leaky_relu(taken(lambda s: small.b(early(net, small, s))), 0.2)
    weights, bias, rest = line(torch.cat([last, end], 1), out)
    print(f"head: {left:.4f}, {more:.4f} and {rest:.4f} are left", flush=True)
    small.o.weight.copy_(weights[:, :HIDDEN, None, None])
    small.o.bias.copy_(bias)
    small.lin.weight.copy_(weights[:, HIDDEN:, None, None])
    small.lin.bias.zero_()
    own = {f"synthesis.{k}": v for k, v in found.items() if is_own(k)}
    return own | {f"head.{k}": v.clone() for k, v in small.state_dict().items()}


def is_own(name: str) -> bool:
    """Whether a tensor of the network is not the large one's."""
    part, number = name.split(".")
    first = {"affine": 8, "offset": 8, "kernels": 9, "noise": 5, "biases": 5}
    return part in first and int(number) >= first[part]


class Student(nn.Module):
    """The narrower network from 16 px on, computed in bfloat16, kept in single precision."""

    def __init__(self, tensors: dict[str, Tensor], mean: Tensor) -> None:
        super().__init__()
        self.net = Synthesis(part_of(tensors, "synthesis."), torch.float32)
        self.head, self.mean = Head(HIDDEN, NARROW), mean
        self.head.load_state_dict(part_of(tensors, "head."))
        parts = {f"synthesis.{k}": v for k, v in self.net.named_parameters() if is_own(k)}
        self.taught = parts | {f"head.{k}": v for k, v in self.head.named_parameters()}
        for value in self.taught.values():
            value.requires_grad_(True)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """Features at 16 px, bfloat16, and styles to pictures, -1..1."""
        net, head, styles = self.net, self.head, styles.to(x.dtype)

        def own(value: Tensor) -> Tensor:
            return value.to(x.dtype)

        def scaled(x: Tensor, layer: int) -> Tensor:
            both = F.linear(styles[:, [13, layer]], own(net.affine[layer]), own(net.offset[layer]))
            side = x.shape[-1]
            scales = (_head(side).to(x.dtype) @ both).unflatten(1, (side, side))
            return x * scales.permute(0, 3, 1, 2)

        layer = 7
        for number in range(4):
            if number % 2 == 0:
                x = _unwavelet(scaled(x, layer))
                layer += 1
            x = scaled(x, layer)
            layer += 1
            x = F.conv2d(x, own(net.kernels[9 + 2 * number]), padding=1, groups=x.shape[1])
            x = F.conv2d(x, own(net.kernels[10 + 2 * number]), own(net._bias(5 + number)))
            x = F.leaky_relu(x + own(net.noise[5 + number]), 0.2)
        style = (styles[:, 11] - own(self.mean)) / 0.5

        def through(part: nn.Conv2d, x: Tensor) -> Tensor:
            return F.conv2d(x, own(part.weight), own(part.bias), padding=part.padding)

        def by(part: nn.Linear) -> Tensor:
            return F.linear(style, own(part.weight), own(part.bias))[:, :, None, None]

        x = x * by(head.m)
        h = F.leaky_relu(through(head.a, x), 0.2)
        h = F.leaky_relu(through(head.b, h * by(head.m2)), 0.2)
        return _unwavelet((through(head.lin, x) + through(head.o, h)).float())


def edges(x: Tensor) -> Tensor:
    """Differences of neighbours, and theirs."""
    across, down = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
    second = across[..., 1:] - across[..., :-1], down[..., 1:, :] - down[..., :-1, :]
    return torch.cat([each.flatten(1) for each in (across, down, *second)], 1)


@torch.no_grad()
def pictures(generator: Generator, path: Path) -> tuple[Tensor, Tensor]:
    """Styles, and what the large network shows of them, kept in a file."""
    if not path.is_file():
        rng = torch.Generator().manual_seed(4242)
        styles = [drawn_styles(generator, rng) for _ in range(POOL)]
        shown = [torch.from_numpy(generator.drawn(each)[0]) for each in styles]
        torch.save((torch.stack(styles).half(), torch.stack(shown).permute(0, 3, 1, 2)), path)
    styles, shown = torch.load(path, weights_only=True)
    return styles, shown


@torch.no_grad()
def early(generator: Generator, styles: Tensor, shown: Tensor) -> dict[str, Tensor]:
    """What tells how a head is turned by its features at 16 px: a ridge on a coarse grid, by the
    means of what a detector sees in a picture and in its mirror image."""
    seen, turned = [], []
    for each, picture in zip(styles.float(), shown, strict=True):
        face = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        points, score = generator.landmarks(face)
        other, second = generator.landmarks(np.ascontiguousarray(face[:, ::-1]))
        if score and second:
            other[:, 0] = 127 - other[:, 0]
            points = (points + other[[1, 0, 2, 4, 3]]) / 2
            turned.append([shape(points)[name] for name in TURNS])
            seen.append(on_grid(generator.synthesis.features(each[None], EARLY).float()))
    x, y = torch.stack(seen), torch.tensor(turned, dtype=torch.float32)
    fitted = torch.arange(len(x)) % 10 > 0

    weights, middle = told_by(x[fitted], y[fitted], RIDGE)
    told = x[~fitted] @ weights.T + middle
    held = [np.corrcoef(told[:, k], y[~fitted][:, k])[0, 1] for k in range(len(TURNS))]
    left = (told - y[~fitted]).std(0).tolist()
    print(
        f"{list(TURNS)} told at 16 px, held out: r {np.round(held, 3)}, astray {np.round(left, 4)}"
    )
    weights, middle = told_by(x, y, RIDGE)
    return {"pose": weights, "pose.middle": middle}


@torch.no_grad()
def read(student: Student, generator: Generator, count: int, path: Path) -> None:
    """Figures of fresh people, and a sheet: the large network's above, the narrower one's below."""
    rng, rows, psnr, sharp = torch.Generator().manual_seed(777), [], [], []
    for _ in range(count):
        styles = drawn_styles(generator, rng)
        one = generator.drawn(styles)[0]
        y = student(generator.synthesis.features(styles[None], 16), styles[None])[0]
        other = ((y + 1) * 127.5).clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
        psnr.append(10 * np.log10(255**2 / np.square(one.astype(float) - other).mean()))
        both = [cv2.Laplacian(f.astype(float).mean(2), cv2.CV_64F) for f in (one, other)]
        sharp.append([np.abs(each).mean() for each in both])
        rows.append(np.vstack([one, other]))
    lines = [np.hstack(rows[i : i + 10]) for i in range(0, len(rows) - 9, 10)]
    Image.fromarray(np.vstack(lines)).save(path)
    told = f"PSNR {np.mean(psnr):.2f} dB (worst {min(psnr):.1f}), Laplacian {np.mean(sharp, 0)}"
    print(f"{path.stem}: {told}", flush=True)


def compare(models: Path, people: int, photos: int, sheet: Path) -> None:
    """Both qualities beside each other, the same keys and draws: the pictures of one style, then
    what the method publishes; and a sheet, the large network's above, the narrower one's below."""
    rng, key = np.random.default_rng(9), {"identity-key": bytes(range(32))}
    made = [create("natural", {"quality": q}).with_secrets(key) for q in ("full", "fast")]
    who = np.repeat([f"p{n}" for n in range(people)], photos)
    draws = rng.standard_normal((len(who), made[0].draw_size)).astype(np.float32)
    blank = np.zeros((len(who), 112, 112, 3), np.uint8)
    full, fast = (m(blank, draws, Context({"identity": list(who)})) for m in made)
    rows = [np.vstack([full[i], fast[i]]) for i in range(40)]
    Image.fromarray(np.vstack([np.hstack(rows[i : i + 10]) for i in range(0, 40, 10)])).save(sheet)
    errors = np.square(full.astype(float) - fast).mean((1, 2, 3))
    same = errors < 600
    psnr = 10 * np.log10(255**2 / errors[same])
    print(f"{len(who)} faces, the same look {same.mean():.3f}, of these PSNR {psnr.mean():.1f} dB")
    center, yunet = CenterFace(0.35, once=True), EdgeFaces(1, 0.6)
    for name, faces in (("full", full), ("fast", fast)):
        sharp = [np.abs(cv2.Laplacian(f.astype(float).mean(2), cv2.CV_64F)).mean() for f in faces]
        colour = [cv2.cvtColor(f, cv2.COLOR_RGB2HSV)[..., 1].mean() for f in faces]
        wide = [cv2.copyMakeBorder(f, *(24,) * 4, cv2.BORDER_REPLICATE) for f in faces]
        found = np.mean([len(center([f])[0]) > 0 for f in wide])
        seen = np.mean([(yunet.whole(f, 1024)[0][:, 4] >= 0.6).any() for f in wide])
        print(
            f"{name}: Laplacian {np.mean(sharp):.2f}, saturation {np.mean(colour):.1f}, a face "
            f"found by CenterFace {found:.3f}, YuNet {seen:.3f}"
        )
    pairs = np.triu_indices(len(who), 1)
    alike = who[pairs[0]] == who[pairs[1]]
    for name in ("faceres", "sface", "mobileface", "dlib"):
        model = Recognizer(RecognizerSpec.parse(f"{name}={models / name}.onnx"), 1)
        a, b = model.embed(full), model.embed(fast)
        shown = [f"{name}: full with fast {np.sum(a * b, 1)[same].mean():.3f}"]
        for kind, t in (("full", a), ("fast", b)):
            scores = (t @ t.T)[pairs]
            limit = np.quantile(scores[~alike], 1 - 1e-3)
            shown.append(
                f"{kind}: same person {scores[alike].mean():.3f}, strangers "
                f"{scores[~alike].mean():.3f} (.999 of them below {limit:.3f}), TAR there "
                f"{(scores[alike] > limit).mean():.3f}"
            )
        print("; ".join(shown), flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("work", type=Path)
    asked.add_argument("--steps", type=int, default=600)
    asked.add_argument("--rate", type=float, default=3e-3)
    asked.add_argument("--every", type=int, default=50)
    asked.add_argument("--fit", type=int, default=24, help="pictures to fit the beginning on")
    asked.add_argument("--save", action="store_true")
    asked.add_argument("--compare", type=Path, help="a folder with recognisers; compares and stops")
    given = asked.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    given.work.mkdir(exist_ok=True)
    if given.compare:
        return compare(given.compare, 50, 4, given.work / "compared.png")
    generator, tensors, last = Generator("cpu"), files.read("natural"), given.work / "last.pt"
    state = torch.load(last, weights_only=True) if last.is_file() else {}
    if not state:
        own = begun_with(generator, tensors, given.fit)
        state = {"own": own, "mean": {k: v.clone() for k, v in own.items()}, "done": 0}
        torch.save(state, last)
    if given.save:
        told = early(generator, *pictures(generator, given.work / "pictures.pt"))
        return files.save("natural.fast", state["mean"] | told)
    student, mean = Student(tensors | state["own"], generator.looks.mean), state["mean"]
    optimiser = torch.optim.AdamW(
        [
            {"params": [value], "size": float(value.detach().square().mean().sqrt()) + 1e-3}
            for value in student.taught.values()
        ],
        given.rate,
        weight_decay=0.0,
    )
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
    kept_styles, kept_pictures = pictures(generator, given.work / "pictures.pt")
    told, begun = [], time.time()
    read(student, generator, 20, given.work / f"read-{state['done']:05d}.png")
    for step in range(state["done"], given.steps):
        rng = torch.Generator().manual_seed(100_000 + step)
        rate = min(1, (step + 1) / 20) * (0.01 + 0.495 * (1 + np.cos(np.pi * step / given.steps)))
        for group in optimiser.param_groups:
            group["lr"] = float(given.rate * rate * group["size"])
        rows = torch.randint(len(kept_styles), (BATCH,), generator=rng)
        styles, wanted = kept_styles[rows].float(), kept_pictures[rows].float() / 127.5 - 1
        with torch.no_grad():
            features = generator.synthesis.features(styles, 16)
        shown = student(features, styles)
        pixels = (shown - wanted).abs().mean()
        sharp = (edges(shown) - edges(wanted)).abs().mean()
        optimiser.zero_grad()
        (pixels + EDGES * sharp).backward()
        torch.nn.utils.clip_grad_norm_(student.taught.values(), 1.0)
        optimiser.step()
        with torch.no_grad():
            for name, value in student.taught.items():
                mean[name].lerp_(value, 1 / min(step + 1, 50))
        told.append([127.5 * float(v.detach()) for v in (pixels, sharp)])
        if (step + 1) % 10 == 0:
            took = time.time() - begun
            print(step + 1, np.round(np.mean(told[-10:], 0), 3), f"{took:.0f} s", flush=True)
        if (step + 1) % given.every == 0 or step + 1 == given.steps:
            own = {name: value.detach().clone() for name, value in student.taught.items()}
            kept = {"own": own, "mean": mean, "done": step + 1}
            torch.save(kept | {"optimiser": optimiser.state_dict()}, last)
            averaged = Student(tensors | mean, generator.looks.mean)
            read(averaged, generator, 20, given.work / f"read-{step + 1:05d}.png")


if __name__ == "__main__":
    main()
