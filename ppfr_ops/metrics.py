"""Per-record measures of privacy and likeness, on what is published.

All take float tensors ``N x 3 x H x W`` in 0..1, RGB, and return ``N`` values; all but the plain
comparison figures are differentiable, so that a loss can use them.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

DISCLOSURE_SCALES = (1, 2, 4, 8)
_EPS = 2e-4
_LUMA = (0.299, 0.587, 0.114)


def luminance(images: Tensor) -> Tensor:
    """ITU-R BT.601 luma: ``N x 3 x H x W`` to ``N x 1 x H x W``."""
    return (images * images.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _stretch(planes: Tensor) -> Tensor:
    """Every plane to mean 0 and standard deviation 0.25: what a viewer's brightness knob undoes."""
    centred = planes - planes.mean((-2, -1), keepdim=True)
    return centred * (0.25 / centred.std((-2, -1), keepdim=True, correction=0).clamp_min(1e-6))


@lru_cache(maxsize=64)
def _band(length: int, stride: int = 1, sigma: float = 1.5, radius: int = 5) -> Tensor:
    """Gaussian window as a banded matrix, valid positions only; a matrix product is several times
    faster than a depthwise convolution on a CPU, forwards and backwards."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    rows = range(0, length - 2 * radius, stride)
    band = torch.zeros(len(rows), length)
    for row, start in enumerate(rows):
        band[row, start : start + 2 * radius + 1] = kernel
    return band


def _smooth(planes: Tensor, stride: int = 1) -> Tensor:
    """Gaussian window, sigma 1.5 px, 11x11: ``N x C x H x W`` to ``N x C x H-10 x W-10``."""
    rows = _band(planes.shape[-2], stride).to(planes)
    columns = _band(planes.shape[-1], stride).to(planes)
    return rows @ planes @ columns.T


def _local_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the image of |sigma_ab| / sqrt((sigma_a^2 + eps)(sigma_b^2 + eps)); ``N x C``."""
    a, b = _stretch(a), _stretch(b)
    b = b.expand_as(a)
    mean_a, mean_b, aa, bb, ab = _smooth(torch.cat([a, b, a * a, b * b, a * b], 1)).chunk(5, 1)
    var_a = (aa - mean_a**2).clamp_min(0)
    var_b = (bb - mean_b**2).clamp_min(0)
    cov = ab - mean_a * mean_b
    return (cov.abs() / ((var_a + _EPS) * (var_b + _EPS)).sqrt()).mean((-2, -1))


def _gradient(plane: Tensor) -> Tensor:
    dx = plane[..., 1:-1, 2:] - plane[..., 1:-1, :-2]
    dy = plane[..., 2:, 1:-1] - plane[..., :-2, 1:-1]
    return (dx**2 + dy**2 + 1e-12).sqrt()


def disclosure_planes(original: Tensor, published: Tensor) -> Tensor:
    """Local correlation for every way of looking; ``N x ways``, each 0..1."""
    light_x, light_y = luminance(original), luminance(published)
    planes_y = torch.cat([light_y, published], 1)
    values = []
    for scale in DISCLOSURE_SCALES:
        pooled_x, pooled_y = F.avg_pool2d(light_x, scale), F.avg_pool2d(planes_y, scale)
        values.append(_local_correlation(pooled_y, pooled_x))
        if scale <= 4:
            values.append(_local_correlation(_gradient(pooled_y[:, :1]), _gradient(pooled_x)))
    return torch.cat(values, 1)


def disclosure(original: Tensor, published: Tensor) -> Tensor:
    """What of the original a person can see: the strongest local correlation over all ways of
    looking (inverted, squinting, from afar, one colour, brightened); ``N``, 0 nothing to 1 all."""
    return disclosure_planes(original, published).amax(1)


def ssim(a: Tensor, b: Tensor, stride: int = 1) -> Tensor:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian window with sigma 1.5, K1 = 0.01,
    K2 = 0.03, valid positions, mean over the channels; ``N``, 1 for equal images.

    Args:
        a, b: ``N x C x H x W`` in 0..1.
        stride: every how many windows one is taken; 2 is enough for a loss.
    """
    mean_a, mean_b = _smooth(a, stride), _smooth(b, stride)
    var_a = _smooth(a * a, stride) - mean_a**2
    var_b = _smooth(b * b, stride) - mean_b**2
    cov = _smooth(a * b, stride) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return (score / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images in 0..1; ``N``, 100 at most (equal images)."""
    return -10 * ((a - b) ** 2).mean((1, 2, 3)).clamp_min(1e-10).log10()


_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale SSIM (Wang, Simoncelli, Bovik 2003), over the first four of the paper's five
    scales with their weights made to sum to 1: the fifth is smaller than the window on a face of
    112 px. Contrast-structure terms below 0 count as 0; ``N``, 0..1, 1 for equal images.

    Args:
        a, b: ``N x C x H x W`` in 0..1, sides of at least 88 px.

    Raises:
        ValueError: a side is too short for four scales.
    """
    if min(a.shape[-2:]) < 88:
        raise ValueError(f"sides of at least 88 px needed, got {tuple(a.shape)}")
    weights = [weight / sum(_MS_SSIM_WEIGHTS) for weight in _MS_SSIM_WEIGHTS]
    c1, c2 = 0.01**2, 0.03**2
    result = torch.ones_like(a[:, :, 0, 0])
    for scale, weight in enumerate(weights):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        mean_a, mean_b, aa, bb, ab = _smooth(torch.cat([a, b, a * a, b * b, a * b], 1)).chunk(5, 1)
        cov = ab - mean_a * mean_b
        term = (2 * cov + c2) / ((aa - mean_a**2) + (bb - mean_b**2) + c2)
        if scale == len(weights) - 1:
            term = term * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        result = result * term.mean((-2, -1)).clamp_min(0) ** weight
    return result.mean(1)


def lowfreq_corr(a: Tensor, b: Tensor, sigma: float = 4.0) -> Tensor:
    """Pearson correlation of what a Gaussian low-pass leaves of the two luminances: shading and
    layout without features; ``N``, -1..1, 0 if a plane is flat.

    Args:
        a, b: ``N x 3 x H x W`` in 0..1.
        sigma: standard deviation of the low-pass, px.
    """
    planes = torch.cat([luminance(a), luminance(b)], 1)
    radius = int(3 * sigma)
    rows = _band(planes.shape[-2] + 2 * radius, 1, sigma, radius).to(planes)
    columns = _band(planes.shape[-1] + 2 * radius, 1, sigma, radius).to(planes)
    low = rows @ F.pad(planes, (radius,) * 4, mode="reflect") @ columns.T
    low = low - low.mean((-2, -1), keepdim=True)
    x, y = low.unbind(1)
    scale = (x**2).mean((-2, -1)) * (y**2).mean((-2, -1))
    return ((x * y).mean((-2, -1)) / scale.sqrt().clamp_min(1e-9)).clamp(-1, 1)
