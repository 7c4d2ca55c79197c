"""The line-up: a blind test of whether a person finds the person.

A viewer sees a published picture and k photographs, one of them *another* photo of the person, the
others strangers, and points. A picture that is a likeness of the person gives them away without
sharing a pixel with the photo; no measure of images notices, people do.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import binom, binomtest

from ppfr_ops.contracts.lineup import Answers, LineUp
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.evaluate.data import FaceSet, rows_of

AGE_APART = 5
"""Years: a stranger is alike in age within so many."""

_PAGE = Path(__file__).parent / "templates" / "lineup.html.j2"


@dataclass(frozen=True)
class Trial:
    """Indices into the gallery: the photo whose picture is shown, and the candidates."""

    probe: int
    candidates: tuple[int, ...]
    answer: int
    """The place of the person among the candidates."""


def draw_trials(
    gallery: FaceSet, trials: int, candidates: int, rng: np.random.Generator
) -> list[Trial]:
    """Choose people, photos and strangers at random.

    Nobody is the person of two trials before everybody was. Strangers have the person's sex and an
    age within :data:`AGE_APART` years where the gallery has ``gender`` and ``age``, as far as there
    are enough of them.

    Args:
        candidates: photographs to choose from, the person's included.

    Raises:
        UserError: no identities, nobody with two photos, or too few people.
    """
    if gallery.identities is None:
        raise UserError("gallery: no column identity, needed to know who is who")
    photos = rows_of(gallery.identities)
    able = [name for name, rows in photos.items() if len(rows) > 1]
    if not able:
        raise UserError("gallery: nobody has two photos")
    if len(photos) < candidates:
        raise UserError(f"gallery: {len(photos)} people, {candidates} candidates are needed")
    turns = math.ceil(trials / len(able))
    order = np.concatenate([rng.permutation(len(able)) for _ in range(turns)])[:trials]
    found = []
    for place in order:
        name = able[place]
        probe, target = rng.choice(photos[name], 2, replace=False).tolist()
        others = _strangers(gallery, photos, name, target, candidates - 1, rng)
        answer = int(rng.integers(candidates))
        row = [*others[:answer], target, *others[answer:]]
        found.append(Trial(probe, tuple(row), answer))
    return found


def alike(gallery: FaceSet) -> list[str]:
    """Labels by which strangers can be chosen."""
    return [name for name in ("gender", "age") if name in gallery.attributes]


def _strangers(
    gallery: FaceSet,
    photos: dict[str, list[int]],
    person: str,
    target: int,
    count: int,
    rng: np.random.Generator,
) -> list[int]:
    """One photo each of ``count`` other people, those most alike first."""
    names = [name for name in photos if name != person]
    rows = [int(rng.choice(photos[names[i]])) for i in rng.permutation(len(names))]

    def unlike(row: int) -> int:
        apart = 0
        for name in alike(gallery):
            a, b = gallery.attributes[name][target], gallery.attributes[name][row]
            if a is None or b is None:
                apart += 1
            elif name == "age":
                apart += abs(a - b) > AGE_APART
            else:
                apart += 2 * (a != b)  # sex before age
        return apart

    return sorted(rows, key=unlike)[:count]  # a stable sort keeps the random order of equals


def page(
    trials: Sequence[Trial], shown: Faces, gallery: Faces, kind: Literal["published", "original"]
) -> str:
    """The test as one HTML file with everything in it.

    Args:
        shown: what is shown in each, uint8 ``T x 112 x 112 x 3``.
        gallery: originals, uint8.
        kind: what ``shown`` is.
    """
    encoding = Encoding()

    def uri(face: NDArray[np.uint8]) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(encoding.encode(face)).decode()

    rows = [
        {
            "number": number,
            "shown": uri(face),
            "candidates": [uri(gallery[i]) for i in trial.candidates],
        }
        for number, (trial, face) in enumerate(zip(trials, shown, strict=True), 1)
    ]
    template = jinja2.Template(_PAGE.read_text(), autoescape=True)
    return template.render(rows=rows, kind=kind, candidates=len(trials[0].candidates))


def sheets(
    trials: Sequence[Trial], shown: Faces, gallery: Faces, rows: int = 6, side: int = 168
) -> list[Image.Image]:
    """The same as contact sheets for anyone who looks at images: a trial a row, what is shown on
    the left, the candidates numbered from 1."""
    count = len(trials[0].candidates)
    font, gap, left = ImageFont.load_default(size=16), 10, 52
    width = left + (count + 1) * (side + gap) + 3 * gap
    pages = []
    for start in range(0, len(trials), rows):
        part = trials[start : start + rows]
        sheet = Image.new("RGB", (width, len(part) * (side + 26 + gap) + gap), "white")
        pen = ImageDraw.Draw(sheet)
        for line, trial in enumerate(part):
            top = gap + line * (side + 26 + gap)
            pen.text((8, top + side // 2), f"#{start + line + 1}", "black", font)
            faces = [shown[start + line], *(gallery[i] for i in trial.candidates)]
            for column, face in enumerate(faces):
                x = left + column * (side + gap) + (2 * gap if column else 0)
                picture = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC)
                sheet.paste(picture, (x, top + 22))
                pen.text((x + side // 2 - 4, top), str(column) if column else "who?", "black", font)
        pages.append(sheet)
    return pages


def interval(found: int, trials: int) -> tuple[float, float]:
    """Clopper-Pearson: the exact interval of a binomial rate at 95 %.

    Raises:
        ValueError: not 0 <= found <= trials, or no trials.
    """
    if not 0 <= found <= trials or trials == 0:
        raise ValueError(f"{found} of {trials}")
    low, high = binomtest(found, trials).proportion_ci(0.95, method="exact")
    return float(low), float(high)


def score(answers: Answers, given: Sequence[int | None], viewer: str) -> LineUp:
    """How often the viewer found the person; a trial without an answer is left out.

    Raises:
        UserError: another number of answers than trials, none, or no such candidate.
    """
    if len(given) != len(answers.answers):
        raise UserError(f"{len(given)} answers, but {len(answers.answers)} trials")
    pairs = [(g, a) for g, a in zip(given, answers.answers, strict=True) if g is not None]
    if not pairs:
        raise UserError("no trial was answered")
    if any(not 1 <= g <= answers.candidates for g, _ in pairs):
        raise UserError(f"answers are numbers from 1 to {answers.candidates}")
    found = sum(g == a for g, a in pairs)
    low, high = interval(found, len(pairs))
    chance = 1 / answers.candidates
    return LineUp(
        viewer=viewer,
        shown=answers.shown,
        method=answers.method,
        candidates=answers.candidates,
        trials=len(pairs),
        found=found,
        rate=found / len(pairs),
        low=low,
        high=high,
        confidence=0.95,
        chance=chance,
        p_value=float(binom.sf(found - 1, len(pairs), chance)),
    )


def parse(text: str) -> list[int | None]:
    """Answers as the page gives them, or as people write them: numbers in the order of the trials,
    with spaces, commas or lines between; ``-`` or ``?`` for a trial without an answer.

    Raises:
        UserError: anything else.
    """
    found: list[int | None] = []
    for word in text.replace(",", " ").split():
        if word in ("-", "?"):
            found.append(None)
        elif word.isdigit():
            found.append(int(word))
        else:
            raise UserError("answers: expected numbers, - for a trial without an answer")
    return found
