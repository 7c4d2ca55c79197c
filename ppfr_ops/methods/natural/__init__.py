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
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from ppfr_ops.errors import UserError
from ppfr_ops.imaging import look
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.keys import IDENTITY, derive
from ppfr_ops.methods.base import Anonymizer, Context, Output
from ppfr_ops.methods.codes import KEY_SIZE, check_key, normals
from ppfr_ops.methods.codes import person as person_name
from ppfr_ops.methods.dp.base import PROMISED, Private, promised
from ppfr_ops.methods.natural import camera, files, looks, steering, traits
from ppfr_ops.methods.natural.generator import Generator, Mix, load
from ppfr_ops.methods.natural.looks import MIX, OTHERS
from ppfr_ops.methods.natural.network import DEPTH, STYLE
from ppfr_ops.methods.natural.steering import Sight
from ppfr_ops.methods.registry import register
from ppfr_ops.privacy import Guarantee, Loss

SIZES = (128, 256, 512, 1024)
"""Sides of pictures that ``render`` gives."""
TRIES, SOUGHT = 6, 8
"""Looks that are drawn for a record before the best of them is taken; and that are looked over
before, without being drawn, where a pose is kept."""
DEFAULT_MIX = {"women": 0.5}
"""Shares of kinds where nothing else is asked for. Said, not left to what is passed over: that once
let three men pass for a woman."""
_OTHER = 0.95
"""How far from the mean style the other draws of a photo lie."""


@dataclass(frozen=True)
class Rendered:
    """Pictures, uint8 ``N x size x size x 3`` RGB; the five landmarks of the face in each, float32
    ``N x 5 x 2``, NaN where none was found; and the detector's scores, float32 ``N``, 0 to 1."""

    pictures: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]


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


@register("natural")
class Natural(Anonymizer):
    redrawable = False
    draws_faces = True
    secrets: ClassVar[Mapping[str, str]] = {
        "identity-key": "decides which virtual people the pictures show"
    }
    wants = ("identity", "look")
    spends = Private.spends
    release_figures = PROMISED

    variation: float = Field(
        1.0,
        ge=0,
        le=1.5,
        description="how much photos of a person differ in pose, expression, light and the like; "
        "1: about as photographs in the wild do; 0: all are the same picture",
    )
    quality: Literal["full", "fast"] = Field(
        "full",
        description="fast: pictures are drawn by a narrower network, in .7 of the time, and a "
        "little softer; the people are the same",
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
    look_epsilon: float | None = Field(
        None,
        ge=1e-3,
        le=64,
        description="privacy loss of a photo's look, whose bins then go through randomised "
        "response; none: they are kept as they are",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")

    @field_validator("keep_look")
    @classmethod
    def _parts(cls, text: str) -> str:
        return look.parts(text)

    @model_validator(mode="after")
    def _of_a_look(self) -> Self:
        if self.look_epsilon is not None and not self.keep_look:
            raise ValueError("look_epsilon goes with keep_look: there is nothing else to noise")
        return self

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
        beside: dict[str, str | float | None] = {"mix": self.mix, "quality": quick}
        beside |= {"keep_look": self.keep_look, "look_epsilon": self.look_epsilon}
        return {"variation": self.variation} | {name: each for name, each in beside.items() if each}

    def guarantee(self) -> Guarantee | None:
        if self.look_epsilon is None:
            return None
        how = "k-ary randomised response of each bin of the look"
        return Guarantee(self.look_epsilon, 0.0, how, 0.0, "record", Loss(pure=self.look_epsilon))

    def about_release(self) -> dict[str, Any]:
        given = self.guarantee()
        about = "what is kept of a photo's look, whose photo it is and how many there are given"
        return {} if given is None else promised(given, about)

    def context_of(self, faces: Faces, labels: Sequence[str | None]) -> Context:
        found = super().context_of(faces, labels).columns
        if self.look_epsilon is None:
            return Context(found)
        key = derive(self.secret("identity-key"), "noise on looks")
        noised = look.noised(faces, found["look"], self.kept_look, self.look_epsilon, key)
        return Context({**found, "look": noised})

    @property
    def shares(self) -> Mix:
        """Of the kinds of people that are drawn, as ``mix`` has them or ``DEFAULT_MIX``; sorted."""
        given = dict(_share(part) for part in self.mix.split(",") if part)
        return tuple(sorted((DEFAULT_MIX | given).items()))

    def weights_digest(self) -> str:
        # And of whom nobody asked for: with others an output does not go on.
        return f"{_digest()} {self.shares}"

    def forget(self) -> None:
        if load.cache_info().currsize:
            self.generator().forget()

    def generator(self) -> Generator:
        """The networks, loaded once a process."""
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise UserError("device=cuda: no GPU is to be had here; auto takes one where there is")
        return load(device)

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
            float32 ``N x 15 x 512``: of the layers, of what is around the head, and the person's
            traits (``traits``; the first numbers of the row).
        """
        chosen = np.zeros((len(labels), DEPTH + 2, STYLE), np.float32)
        for row, label, draw in zip(chosen, labels, draws, strict=True):
            row[:-1] = self._best(label, draw)[1].numpy()
            row[-1, : traits.NUMBERS] = self.traits(label, draw)
        return chosen

    def render(self, styles: NDArray[np.float32], size: int = 256) -> Rendered:
        """Whole pictures, head and background, and where their faces lie.

        Args:
            styles: float32 ``N x 15 x 512``, or fewer rows: without traits, and with the head's
                style around it, too.
            size: 128, 256, 512 or 1024. 1024 is what the whole network draws, the others what heads
                show of its features at 128 and 256 px.

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
                of = torch.from_numpy(each[: DEPTH + 1])
                picture = generator.picture(of, size, self._fast)
                points, scores[row] = generator.landmarks(picture)
                if scores[row] and len(each) > len(of):
                    own = traits.field(each[-1, : traits.NUMBERS])
                    picture, points = camera.turned(picture, points, steering.STILL[:2], own)
                pictures[row], landmarks[row] = picture, points
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
        best = max(found, key=lambda each: each[0])
        best[1].face = traits.field(self.traits(label, draw))
        return best[1:]

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

    def strangers(self, draw: NDArray[np.float32]) -> Iterator[torch.Tensor]:
        """Whom a draw without a label could stand for, one after the other: styles, centred,
        ``512``. No picture of theirs was looked at."""
        return self.generator().candidates(*self._whose(None, draw), self.shares, exact=False)

    def person(self, label: str | None, draw: NDArray[np.float32]) -> torch.Tensor:
        """Who a label, or without one a draw, stands for: a style, centred, ``512``."""
        return self.generator().person(*self._whose(label, draw), self.shares)

    def traits(self, label: str | None, draw: NDArray[np.float32]) -> NDArray[np.float32]:
        """What that person's face has of its own beside the style, float32 ``20``."""
        return traits.drawn(*self._whose(label, draw))

    def _whose(self, label: str | None, draw: NDArray[np.float32]) -> tuple[bytes, bytes]:
        key = check_key(derive(self.secret("identity-key"), IDENTITY, KEY_SIZE))
        return key, person_name(label, draw[: looks.DRAW])

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
        chosen = draw[: looks.DRAW]
        if number:
            seed = hashlib.sha256(chosen.tobytes()).digest()
            chosen = normals(seed, "natural look", bytes([number]), looks.DRAW)
        return self.looks_of([whose], chosen[None], steps)[0]

    def looks_of(
        self,
        people: Sequence[torch.Tensor],
        draws: NDArray[np.float32],
        steps: Mapping[str, float] = look.NO_AIM,
    ) -> torch.Tensor:
        """Styles of people, each in a look of its own, ``N x 14 x 512``. ``draws``: ``N x DRAW``;
        ``steps``: normals of ``LAWS`` that are not drawn."""
        generator = self.generator()
        others, rest = np.split(draws, [OTHERS * STYLE], axis=1)
        drawn = (_OTHER * generator.style(others.reshape(-1, STYLE))).view(-1, OTHERS, STYLE)
        each = zip(people, drawn, torch.from_numpy(rest), strict=True)
        return torch.stack([generator.looks.styles(*one, self.variation, steps) for one in each])


@lru_cache(maxsize=1)
def _digest() -> str:
    return files.digest()
