"""Measures over many faces at once, in the form in which stages report them."""

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.evaluation import Spread
from ppfr_ops.imaging.arrays import Faces, in_chunks
from ppfr_ops.imaging.measures import disclosure, lowfreq_corr, psnr, ssim
from ppfr_ops.lab.evaluate.attacks.networks import to_tensor


def disclosures(originals: Faces, published: Faces) -> NDArray[np.float32]:
    """The disclosure measure of uint8 images; ``N``."""
    return in_chunks(lambda a, b: disclosure(to_tensor(a), to_tensor(b)), originals, published)


def likeness(originals: Faces, other: Faces) -> dict[str, NDArray[np.float32]]:
    """``ssim``, ``psnr`` (dB) and ``lowfreq_corr`` of uint8 images, as they are of a record; ``N``
    each."""
    measures = {"ssim": ssim, "psnr": psnr, "lowfreq_corr": lowfreq_corr}
    return {
        name: in_chunks(lambda a, b: measure(to_tensor(a), to_tensor(b)), originals, other)  # noqa: B023
        for name, measure in measures.items()
    }


def spread(values: NDArray[np.floating]) -> Spread:
    """Mean, 1st, 50th and 99th percentile and maximum."""
    p01, p50, p99 = np.percentile(values, [1, 50, 99])
    return Spread(
        mean=float(values.mean()),
        p01=float(p01),
        p50=float(p50),
        p99=float(p99),
        max=float(values.max()),
    )
