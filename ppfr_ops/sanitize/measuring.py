"""What is measured on every record, on the pixels that a reader of the output decodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ppfr_ops.contracts.metrics import metric_fields
from ppfr_ops.imaging import measures
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.recognizers import Recognizer
from ppfr_ops.sanitize.options import Level

Metrics = dict[str, NDArray[np.float32]]
"""By name; one value a record, NaN where there is nothing to measure."""


def measure(originals: Faces, published: Faces, again: Faces | None) -> Metrics:
    """The measures of ``ppfr_ops.contracts.metrics.MEASURES``, each ``N``.

    Args:
        originals, published, again: uint8 ``N x H x W x 3``; ``published`` and ``again`` are
            decoded from what was encoded, ``again`` with another draw. Without ``again`` only the
            quick measures are taken.
    """
    with torch.inference_mode():
        x, y = _tensor(originals), _tensor(published)
        ssim, ms_ssim = measures.ssim_and_ms_ssim(x, y)
        values = {
            "ssim": ssim,
            "ms_ssim": ms_ssim,
            "psnr": measures.psnr(x, y),
            "lowfreq_corr": measures.lowfreq_corr(x, y),
        }
        if again is not None:
            values["disclosure"] = measures.disclosure(x, y)
            values["draw_similarity"] = measures.disclosure(y, _tensor(again))
        return {name: value.cpu().numpy() for name, value in values.items()}


def _tensor(faces: Faces) -> torch.Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.from_numpy(faces).to(device).permute(0, 3, 1, 2).contiguous().float() / 255


@dataclass(frozen=True)
class Measuring:
    """Measures and FR models at the level that a run asks for."""

    level: Level = "full"
    recognizers: Sequence[Recognizer] = ()

    @property
    def needs_second_draw(self) -> bool:
        """Whether ``compare`` wants each face by another draw too."""
        return self.level == "full"

    def compare(self, originals: Faces, seen: Faces, again: Faces | None) -> Metrics:
        """All metrics of faces that the level has.

        Args:
            originals, seen: uint8 ``N x 112 x 112 x 3``; ``seen`` as decoded from the output.
            again: by another draw; None: a method without draws, which gives ``seen`` again.
        """
        if self.level == "none":
            return {}
        if self.level == "basic":
            measured = measure(originals, seen, None)
        else:
            measured = measure(originals, seen, seen if again is None else again)
        for recognizer in self.recognizers:
            templates = recognizer.embed(originals), recognizer.embed(seen)
            cosine = np.einsum("nd,nd->n", *templates)
            measured[f"id_cosine_{recognizer.name}"] = np.clip(cosine, -1, 1)
        return measured

    def nothing(self, count: int) -> Metrics:
        """The metrics of faces on which nothing could be measured."""
        names = [item.name for item in metric_fields([model.name for model in self.recognizers])]
        slow = () if self.level == "full" else ("disclosure", "draw_similarity")
        return {name: np.full(count, np.nan, np.float32) for name in names if name not in slow}
