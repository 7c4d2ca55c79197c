"""What is measured on every record, on the pixels that a reader of the output decodes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.metrics import METRICS
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.recognizers import Recognizer
from ppfr_ops.sanitize.options import Level

if TYPE_CHECKING:
    import torch

Metrics = dict[str, NDArray[np.float32]]
"""By name; one value a record, NaN where there is nothing to measure."""


@dataclass(frozen=True)
class SecondDraw:
    """Other publications of some of the faces of a batch, by other draws."""

    places: NDArray[np.int64]
    """Which faces, ``M``, rising."""
    faces: Faces | None
    """uint8 ``M x H x W x 3``, in the order of ``places``; None: of a method without draws, which
    publishes the same again."""

    def of(self, rows: Sequence[int]) -> "SecondDraw":
        """Those of the faces ``rows``, which are the batch from now on."""
        where = {int(place): number for number, place in enumerate(self.places)}
        kept = [number for number, row in enumerate(rows) if row in where]
        faces = None if self.faces is None else self.faces[[where[rows[n]] for n in kept]]
        return SecondDraw(np.array(kept, np.int64), faces)


def measure(
    originals: Faces,
    published: Faces,
    again: SecondDraw | None = None,
    only: Collection[str] | None = None,
) -> Metrics:
    """The measures of ``ppfr_ops.contracts.metrics.METRICS``, each ``N``.

    Args:
        originals, published: uint8 ``N x H x W x 3``; ``published`` is decoded from what was
            encoded, and so is ``again``.
        again: what ``draw_similarity`` is measured with, NaN where there is none; None: it is left
            out.
        only: the measures that are wanted; None: all of them.
    """
    import torch  # which takes seconds: not where nothing is measured

    from ppfr_ops.imaging import measures

    with torch.inference_mode():
        x, y = _tensor(originals), _tensor(published)
        values = {}
        if only is None or {"ssim", "ms_ssim"} & set(only):
            values["ssim"], values["ms_ssim"] = measures.ssim_and_ms_ssim(x, y)
        for name in METRICS.keys() - {"ssim", "ms_ssim", "draw_similarity"}:
            if only is None or name in only:
                values[name] = getattr(measures, name)(x, y)
        if again is not None:
            alike = torch.full((len(published),), torch.nan, device=y.device)
            if len(again.places):
                where = torch.from_numpy(again.places).to(y.device)
                other = y[where] if again.faces is None else _tensor(again.faces)
                alike[where] = measures.disclosure(y[where], other)
            values["draw_similarity"] = alike
        return {name: value.cpu().numpy() for name, value in values.items()}


def _tensor(faces: Faces) -> "torch.Tensor":
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.from_numpy(faces).to(device).permute(0, 3, 1, 2).contiguous().float() / 255


@dataclass(frozen=True)
class Measuring:
    """Measures and FR models at the level that a run asks for.

    Args:
        only: the metrics that somebody looks at; None: all of them.
        required: metrics that a bound is on: measured at every level.
    """

    level: Level = "full"
    recognizers: Sequence[Recognizer] = ()
    only: Collection[str] | None = None
    required: Collection[str] = ()

    @cached_property
    def measures(self) -> frozenset[str]:
        """What ``compare`` measures, by name, FR models aside."""
        known = set(METRICS)
        named = set() if self.level == "none" else known
        if self.level != "full":
            named = {name for name in named if not METRICS[name].slow}
        named = named if self.only is None else named.intersection(self.only)
        return frozenset(named | known.intersection(self.required))

    @cached_property
    def judges(self) -> Sequence[Recognizer]:
        """The FR models that ``compare`` asks."""
        wanted = () if self.level == "none" else self.only
        names = {m.name: f"id_cosine_{m.name}" for m in self.recognizers}
        return [
            m
            for m in self.recognizers
            if wanted is None or names[m.name] in wanted or names[m.name] in self.required
        ]

    @property
    def looks(self) -> bool:
        """Whether ``compare`` measures anything."""
        return bool(self.measures or self.judges)

    @property
    def compares_draws(self) -> bool:
        """Whether ``compare`` wants some faces by another draw too."""
        return "draw_similarity" in self.measures

    def compare(self, originals: Faces, seen: Faces, again: SecondDraw | None) -> Metrics:
        """All metrics of faces that the level has.

        Args:
            originals, seen: uint8 ``N x 112 x 112 x 3``; ``seen`` as decoded from the output.
            again: some of them by another draw; None unless ``compares_draws``.
        """
        if not self.looks:
            return {}
        measured = measure(originals, seen, again, self.measures)
        for recognizer in self.judges:
            templates = recognizer.embed(originals), recognizer.embed(seen)
            cosine = np.einsum("nd,nd->n", *templates)
            measured[f"id_cosine_{recognizer.name}"] = np.clip(cosine, -1, 1)
        return measured

    def nothing(self, count: int) -> Metrics:
        """The metrics of faces on which nothing could be measured."""
        names = [*self.measures, *(f"id_cosine_{model.name}" for model in self.judges)]
        return {name: np.full(count, np.nan, np.float32) for name in names}
