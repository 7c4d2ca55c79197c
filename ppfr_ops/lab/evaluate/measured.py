"""Measures over many faces at once, in the form in which stages report them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.evaluation import Spread
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.measures import disclosure, lowfreq_corr, psnr, ssim
from ppfr_ops.lab.evaluate.attacks.networks import to_tensor


def chunks(count: int, size: int = 64) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``count``."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def disclosures(originals: Faces, published: Faces) -> NDArray[np.float32]:
    """The disclosure measure of uint8 images; ``N``."""
    parts = [
        disclosure(to_tensor(originals[part]), to_tensor(published[part])).numpy()
        for part in chunks(len(originals))
    ]
    return np.concatenate(parts)


def likeness(originals: Faces, other: Faces) -> dict[str, NDArray[np.float32]]:
    """``ssim``, ``psnr`` (dB) and ``lowfreq_corr`` of uint8 images, as they are of a record; ``N``
    each."""
    measures = {"ssim": ssim, "psnr": psnr, "lowfreq_corr": lowfreq_corr}
    values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in measures}
    for part in chunks(len(originals)):
        a, b = to_tensor(originals[part]), to_tensor(other[part])
        for name, measure in measures.items():
            values[name].append(measure(a, b).numpy())
    return {name: np.concatenate(parts) for name, parts in values.items()}


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
