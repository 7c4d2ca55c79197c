"""Natural people: photographs of people who do not exist, many of each.

The third version of the generator. Nothing of a face is read: who a picture shows is drawn by the
key for each label, how it shows the person (pose, expression, light, age, hair, background) by the
draw. The pictures come from MobileStyleGAN (arXiv 2104.04767); licences: ``weights/NOTICE.md``.

A picture is computed by itself, whatever batch it stands in, and a picture in which no face is
found, or which is damaged, is drawn again by its own draw: no original is compared with anything.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ppfr_ops.errors import UserError
from ppfr_ops.imaging import look
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.keys import IDENTITY, derive
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.base import Anonymizer, Context, Output
from ppfr_ops.methods.codes import KEY_SIZE, check_key, normals
from ppfr_ops.methods.codes import person as person_name
from ppfr_ops.methods.natural import camera, files, looks, steering
from ppfr_ops.methods.natural.looks import ATTRIBUTES, MIX, OTHERS, Looks, on_grid
from ppfr_ops.methods.natural.network import LAST, STYLE, Head, Silhouette, Synthesis, pixels
from ppfr_ops.methods.natural.network import Mapping as Mapper
from ppfr_ops.methods.natural.quality import plain, sound
from ppfr_ops.methods.natural.steering import STILL, Sight
from ppfr_ops.methods.registry import register
from ppfr_ops.torchscript import bf16_pays

SIZES = (128, 256, 512, 1024)
"""Sides of pictures that ``render`` gives."""
TRIES, SOUGHT = 6, 8
"""Looks that are drawn for a record before the best of them is taken; and that are looked over
before, without being drawn, where a pose is kept."""
PEOPLE_TRIED, PEOPLE_SEEN = 64, 8
"""Candidates for a person before crowds do not count any more, and how many of them are drawn and
looked at."""
MOST_NUMBERS = 20_000
"""Styles that are looked over for somebody of the kinds that ``mix`` asks for."""
DEFAULT_MIX = {"women": 0.5}
"""Shares of kinds where nothing else is asked for. Said, not left to what is passed over: that once
let three men pass for a woman."""
_SMALL, _KEPT, EARLY = 128, 20_000, 16
_BORDER = 16
"""Around a picture of 128 px before a detector sees it, px."""
_MIDDLE, _FAR = (64.0, 77.0), 14.0
"""Of a picture of 128 px: where the middle of the face's landmarks lies, and how far from it one is
somebody else, px."""
_OTHER = 0.95
"""How far from the mean style the other draws of a photo lie."""


Mix = tuple[tuple[str, float], ...]
"""Kinds of people and their shares."""


@dataclass(frozen=True)
class Rendered:
    """Pictures, uint8 ``N x size x size x 3`` RGB; the five landmarks of the face in each, float32
    ``N x 5 x 2``, NaN where none was found; and the detector's scores, float32 ``N``, 0 to 1."""

    pictures: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]


class Generator:
    """Networks, looks and detector, loaded once a process."""

    def __init__(self, device: str) -> None:
        keep_freed_memory()
        self.device = device
        tensors = files.read("natural")
        self.mapping = Mapper(files.read("natural.mapping"))
        self.small = tensors
        self.precision = torch.bfloat16 if bf16_pays(device) else torch.float32
        self.synthesis, self.head = self._drawing(tensors)
        self.looks = Looks(files.read("natural.looks"))
        self.detector = CenterFace(threshold=0.2, threads=1, once=True)
        self._people: dict[tuple[bytes, bytes, Mix], torch.Tensor] = {}

    def _drawing(self, tensors: Mapping[str, torch.Tensor]) -> tuple[Synthesis, Head]:
        """The network up to 64 px and what shows that at 128 px."""
        head = Head(len(tensors["head.a.bias"]), len(tensors["head.m.bias"]))
        head.load_state_dict(_part(tensors, "head."))
        head.requires_grad_(False).to(self.device, self.precision)
        head.to(memory_format=LAST)  # type: ignore[call-overload]
        return Synthesis(_part(tensors, "synthesis."), self.precision).to(self.device), head

    @lru_cache(maxsize=1)  # noqa: B019 - there is one generator a device
    def _quick(self) -> dict[str, torch.Tensor]:
        return files.read(files.FAST)

    @lru_cache(maxsize=1)  # noqa: B019 - there is one generator a device
    def fast(self) -> tuple[Synthesis, Head]:
        """The same with fewer channels where there are most pixels."""
        return self._drawing(self.small | self._quick())

    def pose(self, styles: torch.Tensor) -> dict[str, float]:
        """How a head will be turned, as ``imaging.look`` has it, told by its features at 16 px."""
        features = self.synthesis.features(styles[None].to(self.device), EARLY).float().cpu()
        told = self._quick()["pose"] @ on_grid(features) + self._quick()["pose.middle"]
        return dict(zip(steering.TURNS, told.tolist(), strict=True))

    def style(self, z: NDArray[np.float32]) -> torch.Tensor:
        """Normals ``512`` or ``N x 512`` to styles, centred."""
        found: torch.Tensor = self.mapping(torch.from_numpy(np.atleast_2d(z))) - self.looks.mean
        return found.view(z.shape)

    @lru_cache(maxsize=1)  # noqa: B019 - there is one generator a device
    def large(self) -> Synthesis:
        """The network up to 1024 px."""
        tensors = _part(self.small, "synthesis.") | _part(files.read(files.LARGE), "synthesis.")
        return Synthesis(tensors, self.precision).to(self.device)

    def person(self, key: bytes, whose: bytes, mix: Mix) -> torch.Tensor:
        """A person's style, centred, ``512``. Of the candidates the first that is not crowded and
        whose plain picture is sound and not damaged; where none of some is, the best of them. It
        depends on nothing else."""
        known = key, whose, mix
        if known in self._people:
            return self._people[known]
        seen: list[torch.Tensor] = []
        fits = False
        for tried, chosen in enumerate(self.candidates(key, whose, mix)):
            if tried < PEOPLE_TRIED and self.looks.crowded(chosen):
                continue
            seen.append(chosen)
            fits = self.fit(chosen, 1.0) >= 1
            if fits or len(seen) == PEOPLE_SEEN:
                break
        if seen and not fits:
            chosen = max(seen, key=self.fit)
        if len(self._people) >= _KEPT:
            self._people.pop(next(iter(self._people)))
        self._people[known] = chosen
        return chosen

    def fit(self, person: torch.Tensor, least: float = 0.0) -> float:
        """How sound and whole a person's plain picture is, 1 and more is good enough; not drawn to
        its end where that is known to be less than ``least``."""
        styles = self.looks.styles(person, torch.zeros(OTHERS, STYLE), torch.zeros(ATTRIBUTES), 0.0)
        features = self._features(styles)
        whole = self.looks.whole(features)
        if whole < least:
            return whole
        seen = self._sight(self._shown(styles, features))
        return seen.sound and min(seen.sound, whole, plain(seen.aligned(STILL)))

    def candidates(self, key: bytes, whose: bytes, mix: Mix) -> Iterator[torch.Tensor]:
        """Styles that key and person give one after the other, ``512`` each, centred and as far
        from the mean as people lie: those that are of the kinds that the person is to be of; if
        none of very many is, the last."""
        drawn = torch.special.ndtr(torch.from_numpy(normals(key, "natural mix", whose, len(MIX))))
        shares = dict(zip(MIX, drawn.tolist(), strict=True))
        wanted = {name: shares[name] < share for name, share in mix}
        none = True
        for number in range(MOST_NUMBERS):
            name = number.to_bytes(2, "big") + whose
            found = self.looks.person(self.style(normals(key, "natural person", name, STYLE)))
            if self.looks.is_of(found, wanted) or (none and number == MOST_NUMBERS - 1):
                none = False
                yield found

    @lru_cache(maxsize=1)  # noqa: B019 - there is one generator a device
    def _silhouette(self) -> Silhouette:
        net = Silhouette()
        net.load_state_dict(files.read(files.SILHOUETTE))
        return net.requires_grad_(False).to(self.device, self.precision)

    def silhouette(self, features: torch.Tensor) -> NDArray[np.float32]:
        """How much of each pixel is the person and not what is behind, float32 ``128 x 128``, 0 to
        1, from the features of ``drawn``."""
        shares = self._silhouette()(features).sigmoid()[0, 0]
        return np.asarray(shares.float().cpu().numpy(), np.float32)

    def drawn(
        self, styles: torch.Tensor, fast: bool = False
    ) -> tuple[NDArray[np.uint8], torch.Tensor]:
        """One picture, uint8 ``128 x 128 x 3``, of styles ``14 x 512``, and its features at 64 px,
        ``1 x 512 x 64 x 64``; ``fast``: fewer."""
        features = self._features(styles, fast)
        return self._shown(styles, features, fast), features

    def _features(self, styles: torch.Tensor, fast: bool = False) -> torch.Tensor:
        synthesis = self.fast()[0] if fast else self.synthesis
        return synthesis.features(styles[None].to(self.device), 64)

    def _shown(
        self, styles: torch.Tensor, features: torch.Tensor, fast: bool = False
    ) -> NDArray[np.uint8]:
        head = self.fast()[1] if fast else self.head
        return pixels(head(features, ((styles[11] - self.looks.mean) / 0.5)[None].to(self.device)))

    def picture(self, styles: torch.Tensor, size: int, fast: bool = False) -> NDArray[np.uint8]:
        """One picture, uint8 ``size x size x 3``, of styles ``14 x 512``."""
        if size == _SMALL:
            return self.drawn(styles, fast)[0]
        y = self.large()(styles[None].to(self.device))
        if y.shape[-1] != size:
            y = torch.nn.functional.interpolate(y, size=(size, size), mode="area")
        return pixels(y)

    def landmarks(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """Five landmarks of the face in the middle, ``5 x 2``, and the detector's score; NaN and 0
        where it finds none there."""
        scale = picture.shape[0] / _SMALL
        small = cv2.resize(picture, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)
        found = self.detector([_bordered(small.astype(np.uint8))])[0]
        points = found.landmarks - _BORDER
        away = np.linalg.norm(points.mean(1) - _MIDDLE, axis=1)
        away[~np.isfinite(away)] = np.inf
        if not len(away) or away.min() > _FAR:
            return np.full((5, 2), np.nan, np.float32), 0.0
        best = int(away.argmin())
        return ((points[best] + 0.5) * scale - 0.5).astype(np.float32), float(found.scores[best])

    def forget(self) -> None:
        """Drop the people that are kept."""
        self._people.clear()

    def looked_at(self, styles: torch.Tensor, fast: bool = False) -> "Sight":
        """A picture with a border, as it is judged; damage is not told of fewer features."""
        picture, features = self.drawn(styles, fast)
        seen = self._sight(picture)
        if not fast:
            seen.sound = min(seen.sound, self.looks.whole(features))
        return seen

    def _sight(self, picture: NDArray[np.uint8]) -> "Sight":
        points, score = self.landmarks(picture)
        seen = Sight(_bordered(picture), points + _BORDER)
        if score:
            seen.sound = sound(seen.aligned(STILL), points, score)
        return seen


def _bordered(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = (_BORDER,) * 4
    return cv2.copyMakeBorder(picture, *side, cv2.BORDER_REPLICATE).astype(np.uint8)


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _share(text: str) -> tuple[str, float]:
    """``women=0.5``.

    Raises:
        ValueError: no such kind, or no share.
    """
    name, _, number = text.strip().partition("=")
    share = float(number) if number.replace(".", "", 1).isdigit() else -1.0
    if name not in MIX or not 0 <= share <= 1:
        raise ValueError(f"{text.strip()!r}: needed is a share of {', '.join(MIX)}: women=0.5")
    return name, share


@lru_cache(maxsize=2)
def _load(device: str) -> Generator:
    # Who loads it first may be in inference mode, in which parameters would be for nothing else.
    with torch.inference_mode(False):
        return Generator(device)


@register("natural")
class Natural(Anonymizer):
    redrawable = False
    draws_faces = True
    secrets: ClassVar[Mapping[str, str]] = {
        "identity-key": "decides which virtual people the pictures show"
    }
    wants = ("identity", "look")

    variation: float = Field(
        1.0,
        ge=0,
        le=1.5,
        description="how much photos of a person differ in pose, expression, light and the like; "
        "1: about as photographs in the wild do; 0: all are the same picture",
    )
    quality: Literal["full", "fast"] = Field(
        "full",
        description="fast: pictures are drawn by a narrower network, in half of the time, and a "
        "little less clean; the people are the same",
    )
    mix: str = Field(
        "",
        description="shares of kinds of people, such as women=0.5,dark=0.4: of "
        + ", ".join(MIX)
        + "; children are under 16; women are half where nothing else is said, the others as they "
        "come",
    )
    keep_look: str = Field(
        "",
        description="parts of a photo's look that its picture has too, coarsely, such as "
        "pose,light: of " + ", ".join(look.PARTS) + "; empty: none, all of it is drawn",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")

    @field_validator("keep_look")
    @classmethod
    def _parts(cls, text: str) -> str:
        return look.parts(text)

    @field_validator("mix")
    @classmethod
    def _shares(cls, text: str) -> str:
        """Sorted, so that the same mix is the same options."""
        shares = dict(_share(part) for part in text.split(",") if part.strip())
        return ",".join(f"{name}={share:g}" for name, share in sorted(shares.items()))

    @property
    def draw_size(self) -> int:
        return looks.DRAW + camera.DRAW

    @property
    def reads_faces(self) -> bool:
        return False

    def options(self) -> dict[str, Any]:
        quick = "" if self.quality == "full" else self.quality
        beside = {"mix": self.mix, "keep_look": self.keep_look, "quality": quick}
        return {"variation": self.variation} | {name: text for name, text in beside.items() if text}

    @property
    def shares(self) -> Mix:
        """Of the kinds of people that are drawn, as ``mix`` has them or ``DEFAULT_MIX``; sorted."""
        given = dict(_share(part) for part in self.mix.split(",") if part)
        return tuple(sorted((DEFAULT_MIX | given).items()))

    def weights_digest(self) -> str:
        return _digest()

    def forget(self) -> None:
        if _load.cache_info().currsize:
            self.generator().forget()

    def generator(self) -> Generator:
        """The networks, loaded once a process."""
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise UserError("device=cuda: no GPU is to be had here; auto takes one where there is")
        return _load(device)

    def anonymize_with(
        self, faces: Faces, draws: NDArray[np.float32], context: Context
    ) -> Faces | Output:
        """The faces are not looked at; the context's ``identity``: labels (str), or None: somebody
        new; ``look``, with ``keep_look``: as ``imaging.look`` has it, or None."""
        out = np.empty_like(faces)
        told = context["look"] if self.keep_look else [None] * len(faces)
        rows = zip(context["identity"], draws, told, strict=True)
        for row, (label, draw, seen) in enumerate(rows):
            aim = look.aims(seen, steering.places(draw))
            taken = camera.wide(draw[looks.DRAW :], self.variation)
            out[row] = self._best(label, draw, aim)[0].aligned(taken, aim)
        return out

    def styles(
        self, labels: Sequence[str | None], draws: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Styles of photos, for ``render``: the look that ``__call__`` would show of the same label
        and draw.

        Args:
            labels: whom each shows; None: somebody new.
            draws: float32 ``N x draw_size``, standard normals.

        Returns:
            float32 ``N x 14 x 512``.
        """
        chosen = [self._best(*each)[1].numpy() for each in zip(labels, draws, strict=True)]
        return np.stack(chosen) if chosen else np.zeros((0, 14, STYLE), np.float32)

    def render(self, styles: NDArray[np.float32], size: int = 256) -> Rendered:
        """Whole pictures, head and background, and where their faces lie.

        Args:
            styles: float32 ``N x 14 x 512``.
            size: 128, 256, 512 or 1024. 128 is drawn by the head of the small network; the others
                by the whole network, reduced.

        Raises:
            ValueError: another size.
        """
        if size not in SIZES:
            raise ValueError(f"size must be one of {SIZES}, got {size}")
        generator = self.generator()
        pictures = np.zeros((len(styles), size, size, 3), np.uint8)
        landmarks = np.zeros((len(styles), 5, 2), np.float32)
        scores = np.zeros(len(styles), np.float32)
        with torch.inference_mode():
            for row, each in enumerate(styles):
                pictures[row] = generator.picture(torch.from_numpy(each), size, self._fast)
                landmarks[row], scores[row] = generator.landmarks(pictures[row])
        return Rendered(pictures, landmarks, scores)

    def _best(
        self, label: str | None, draw: NDArray[np.float32], aim: Mapping[str, float] = look.NO_AIM
    ) -> tuple[Sight, torch.Tensor]:
        """The first look of a person that is sound, from the one on that comes nearest to what is
        aimed at; or the best of those that are tried."""
        generator, first, steps = self.generator(), 0, steering.begin(aim)
        found: list[tuple[float, Sight, torch.Tensor]] = []
        with torch.inference_mode():
            whose = self.person(label, draw)
            if steps:
                first, steps = self._sought(whose, draw, steps, aim)
            for number in range(first, first + TRIES):
                styles = self._styles(whose, draw, number, steps)
                sight = generator.looked_at(styles, self._fast)
                found.append((sight.sound, sight, styles))
                if sight.sound >= 1:
                    break
        return max(found, key=lambda each: each[0])[1:]

    def _sought(
        self,
        whose: torch.Tensor,
        draw: NDArray[np.float32],
        steps: dict[str, float],
        aim: Mapping[str, float],
    ) -> tuple[int, dict[str, float]]:
        """Which look comes nearest to what it is aimed at, and with which normals, as far as can be
        told before it is drawn."""
        number, best, found = 0, np.inf, (0, steps)
        for _ in range(SOUGHT):
            before = dict(steps)
            told = self.generator().pose(self._styles(whose, draw, number, before))
            missed = steering.steer(steps, told, aim)
            if missed < best:
                best, found = missed, (number, before)
            if not missed:
                break
            number += steps == before
        return found

    def tries(
        self,
        label: str | None,
        draw: NDArray[np.float32],
        steps: Mapping[str, float] = look.NO_AIM,
    ) -> Iterator[torch.Tensor]:
        """Styles of looks of a person, ``14 x 512``, one after the other; the first is that of the
        draw, the others are drawn by it. ``steps``: normals of ``LAWS`` that are not drawn."""
        whose = self.person(label, draw)
        for number in range(TRIES):
            yield self._styles(whose, draw, number, steps)

    def person(self, label: str | None, draw: NDArray[np.float32]) -> torch.Tensor:
        """Who a label, or without one a draw, stands for: a style, centred, ``512``."""
        key = check_key(derive(self.secret("identity-key"), IDENTITY, KEY_SIZE))
        return self.generator().person(key, person_name(label, draw[: looks.DRAW]), self.shares)

    @property
    def _fast(self) -> bool:
        return self.quality == "fast"

    def _styles(
        self,
        whose: torch.Tensor,
        draw: NDArray[np.float32],
        number: int,
        steps: Mapping[str, float],
    ) -> torch.Tensor:
        chosen = draw[: looks.DRAW].copy()
        if number:
            seed = hashlib.sha256(chosen.tobytes()).digest()
            chosen = normals(seed, "natural look", bytes([number]), looks.DRAW)
        generator, others = self.generator(), chosen[: OTHERS * STYLE].reshape(OTHERS, STYLE)
        drawn = _OTHER * generator.style(others)
        rest = torch.from_numpy(chosen[OTHERS * STYLE :])
        return generator.looks.styles(whose, drawn, rest, self.variation, steps)


@lru_cache(maxsize=1)
def _digest() -> str:
    return files.digest()
