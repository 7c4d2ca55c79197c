"""Per-record measures of privacy and likeness, on what is published.

All take float tensors ``N x 3 x H x W`` in 0..1, RGB, and return ``N`` values; all but the plain
comparison figures are differentiable, so that a loss can use them.
"""

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


def _smooth(planes: Tensor, sigma: float = 1.5, radius: int = 5) -> Tensor:
    """Gaussian window, valid positions only: ``N x C x H x W`` to ``N x C x H-10 x W-10``."""
    offsets = torch.arange(-radius, radius + 1, dtype=planes.dtype, device=planes.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    channels = planes.shape[1]
    planes = F.conv2d(planes, kernel.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(planes, kernel.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)


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
