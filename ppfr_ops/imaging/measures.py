"""Per-record measures of privacy and likeness, on what is published.

All take float tensors ``N x 3 x H x W`` in 0..1, RGB, and return ``N`` values; all but the plain
comparison figures are differentiable, so that a loss can use them.
"""

from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DISCLOSURE_SCALES = (1, 2, 4, 8)
PART_PENALTY = 0.5
SEARCH_PENALTY = 0.5
_EPS = 2e-4
_LUMA = (0.299, 0.587, 0.114)


def luminance(images: Tensor) -> Tensor:
    """ITU-R BT.601 luma: ``N x 3 x H x W`` to ``N x 1 x H x W``."""
    height, width = images.shape[-2:]
    return (images.new_tensor([_LUMA]) @ images.flatten(2)).view(-1, 1, height, width)


def _centre(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Every plane to mean 0, and its mean square then, at least 1e-12."""
    centred = planes - planes.mean((-2, -1), keepdim=True)
    square = torch.linalg.vector_norm(centred, dim=(-2, -1), keepdim=True) ** 2
    return centred, (square / (planes.shape[-2] * planes.shape[-1])).clamp_min(1e-12)


def _stretch(planes: Tensor) -> Tensor:
    """Every plane to mean 0 and standard deviation 0.25: what a viewer's brightness knob undoes."""
    centred, square = _centre(planes)
    return centred * (0.25 / square.sqrt())


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a cached tensor must serve training too
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


_WINDOW = np.exp(-(np.arange(-5, 6, dtype=np.float64) ** 2) / (2 * 1.5**2))
_WINDOW = (_WINDOW / _WINDOW.sum()).astype(np.float32)


def _smooth(planes: Tensor, stride: int = 1) -> Tensor:
    """Gaussian window, sigma 1.5 px, 11x11: ``N x C x H x W`` to ``N x C x H-10 x W-10``, every
    ``stride``-th position."""
    height, width = planes.shape[-2:]
    plain = planes.device.type == "cpu" and planes.dtype == torch.float32
    if plain and stride == 1 and width > 64 and not planes.requires_grad:
        # Of wide planes OpenCV's separable filter does the same, quicker; it knows no derivative.
        stack = planes.contiguous().numpy().reshape(-1, width)
        smooth = cv2.sepFilter2D(stack, cv2.CV_32F, _WINDOW, _WINDOW)
        whole = torch.from_numpy(smooth).view(planes.shape)
        return whole[..., 5 : height - 5, 5 : width - 5]
    rows, columns = _band(height, stride).to(planes), _band(width, stride).to(planes)
    return rows @ planes @ columns.T


def _correlation_map(a: Tensor, b: Tensor, stride: int = 1) -> Tensor:
    """|sigma_ab| / sqrt((sigma_a^2 + eps)(sigma_b^2 + eps)) at every position.

    ``a``: ``N x 1 x H x W`` or ``N x C x H x W``, ``b``: ``N x C x H x W``; both are stretched
    first, to a standard deviation of 0.25. Gives ``N x C x h x w``.
    """
    # The quotient stays the same if eps is shrunk rather than the planes stretched.
    (a, square_a), (b, square_b) = _centre(a), _centre(b)
    mean_a, mean_b = _smooth(a, stride), _smooth(b, stride)
    var_a = torch.addcmul(_smooth(a * a, stride), mean_a, mean_a, value=-1).clamp_min(0)
    var_b = torch.addcmul(_smooth(b * b, stride), mean_b, mean_b, value=-1).clamp_min(0)
    cov = torch.addcmul(_smooth(a * b, stride), mean_a, mean_b, value=-1)
    product = (var_a + 16 * _EPS * square_a) * (var_b + 16 * _EPS * square_b)
    return cov.abs() * product.rsqrt()


def _gradient(planes: Tensor) -> Tensor:
    """Gradient magnitude from the two diagonals of 2x2 px (Roberts); one row and column less."""
    down = planes[..., 1:, 1:] - planes[..., :-1, :-1]
    up = planes[..., 1:, :-1] - planes[..., :-1, 1:]
    return (down**2 + up**2 + 1e-12).sqrt()


def _wide_gradient(planes: Tensor) -> Tensor:
    """Gradient magnitude from central differences, which skip a pixel and so see through stripes
    and checkerboards of alternating sign; two rows and columns less."""
    dx = planes[..., 1:-1, 2:] - planes[..., 1:-1, :-2]
    dy = planes[..., 2:, 1:-1] - planes[..., :-2, 1:-1]
    return (dx**2 + dy**2 + 1e-12).sqrt()


def _handicap(values: Tensor, penalty: float) -> Tensor:
    """What a way of looking that searches has to give away: 1 stays 1, and what unrelated images
    reach by chance falls below what they reach without a search."""
    return 1 - (1 - values) * (1 + penalty)


def _colour_mix(light: Tensor, channels: Tensor) -> Tensor:
    """The mix of the channels closest to ``light`` (least squares, ridge): an eye that looks at
    hue or saturation, or a person who mixes the channels until a face appears; ``N x 1 x H x W``.
    """
    target = _stretch(light).flatten(2)
    planes = _stretch(channels).flatten(2)
    gram = planes @ planes.transpose(1, 2) / planes.shape[-1]
    ridge = 1e-3 * torch.eye(planes.shape[1], dtype=planes.dtype, device=planes.device)
    weights = torch.linalg.solve(gram + ridge, planes @ target.transpose(1, 2) / planes.shape[-1])
    return (weights.transpose(1, 2) @ planes).view_as(light)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _box(length: int, radius: int = 2) -> Tensor:
    """Moving mean over 5 as a banded matrix; fewer at the ends."""
    offsets = torch.arange(length)
    band = ((offsets[:, None] - offsets[None, :]).abs() <= radius).float()
    return band / band.sum(1, keepdim=True)


def _detail(planes: Tensor) -> Tensor:
    """Planes less their local mean over 5x5: what is seen through a smooth veil."""
    rows, columns = _box(planes.shape[-2]).to(planes), _box(planes.shape[-1]).to(planes)
    return planes - rows @ planes @ columns.T


def _half(planes: Tensor) -> Tensor:
    """Average pooling by 2; of an odd side the last line is left out."""
    rows = planes[..., :-1:2, :] + planes[..., 1::2, :]
    return (rows[..., :-1:2] + rows[..., 1::2]) / 4


def _aligned_ways(original: Tensor, published: Tensor) -> list[Tensor]:
    light_x, light_y = luminance(original), luminance(published)
    planes_y = torch.cat([light_y, published], 1)
    ways = []
    x, y = light_x, planes_y
    for scale in DISCLOSURE_SCALES:
        if scale > 1:
            x, y = _half(x), _half(y)
        stride = 2 if scale == 1 else 1
        seen = [y]
        if scale in (2, 4):  # at 8 there are few px left, and three weights fit anybody
            seen.append(_colour_mix(x, y[:, 1:]))
        if scale <= 4:
            seen.append(_detail(y[:, :1]))
        maps = _correlation_map(x, torch.cat(seen, 1), stride)
        ways.append(maps.mean((-2, -1)))
        if scale <= 2:  # a part of the face in the clear: nine overlapping quarters
            quarter = (maps.shape[-2] // 2, maps.shape[-1] // 2)
            step = (quarter[0] // 2, quarter[1] // 2)
            parts = F.avg_pool2d(maps[:, :4], quarter, step)
            ways.append(_handicap(parts.flatten(2).amax(2), PART_PENALTY))
        if scale <= 4:
            # the lines of the original, as lines or drawn as tones
            lines = torch.cat([_gradient(y[:, :1]), y[:, :1, :-1, :-1]], 1)
            ways.append(_correlation_map(_gradient(x), lines, stride).mean((-2, -1)))
            wide = _correlation_map(_wide_gradient(x), _wide_gradient(y[:, :1]), stride)
            ways.append(wide.mean((-2, -1)))
    # texture whose strength carries the picture, or the picture folded at its mean
    envelope = _half(_half(F.pad(_gradient(light_y), (0, 1, 0, 1), mode="replicate")))
    x = _half(_half(light_x))
    folded = (x - x.mean((-2, -1), keepdim=True)).abs()
    both = torch.cat([x, folded], 1)
    ways.append(_correlation_map(both, envelope.expand_as(both)).mean((-2, -1)))
    return ways


def disclosure_planes(original: Tensor, published: Tensor) -> Tensor:
    """Local correlation for every way of looking straight at it; ``N x ways``, at most 1."""
    return torch.cat(_aligned_ways(original, published), 1)


def _dihedral(planes: Tensor) -> Tensor:
    """All eight mirrored and turned versions of square planes: ``N x 1 x H x H`` to ``N x 8``."""
    turned = [torch.rot90(planes, k, (-2, -1)) for k in range(4)]
    return torch.cat([*turned, *(part.flip(-1) for part in turned)], 1)


def _roll(planes: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Circular shift by ``down`` and ``right`` px, one of each an image; ``N x 1 x H x W``."""
    height, width = planes.shape[-2:]
    rows = (torch.arange(height, device=planes.device) - down[:, None]) % height
    columns = (torch.arange(width, device=planes.device) - right[:, None]) % width
    rows = rows[:, None, :, None].expand(-1, 1, -1, width)
    columns = columns[:, None, None, :].expand(-1, 1, height, -1)
    return planes.gather(2, rows).gather(3, columns)


def _search(templates: Tensor, scene: Tensor) -> Tensor:
    """Where in the scene does one of the templates lie, and how well does it fit there?

    Args:
        templates: ``N x T x h x h``: one picture in T poses.
        scene: ``N x 1 x H x H``, ``H >= h``.

    Returns:
        ``N``: mean local correlation over the part of the template inside the scene, at the pose
        and offset of the highest circular cross-correlation; 0 where less than half is inside.
    """
    side, size = scene.shape[-1], templates.shape[-1]
    room, out = side + size, size // 2
    with torch.no_grad():
        # Less than half is inside when it is further out than by half its side: so only offsets
        # from -out on, which the margin makes 0, need be looked at.
        margined = F.pad(_stretch(scene), (out, size - out, out, size - out))
        spectrum = torch.fft.rfft2(margined)
        patterns = torch.fft.rfft2(_stretch(templates), s=(room, room))
        cross = torch.fft.irfft2(spectrum * patterns.conj(), s=(room, room))
        offsets = torch.arange(-out, side - size + out + 1, device=scene.device)
        inside = torch.minimum(offsets + size, offsets.new_tensor(side)) - offsets.clamp_min(0)
        inside = inside.to(scene.dtype)
        area = inside[:, None] * inside[None, :]
        # a sum over n positions of unrelated pictures grows with the root of n
        scale = torch.where(area >= 0.5 * size * size, area.rsqrt(), 0.0)
        count = len(offsets)
        best = (cross[..., :count, :count] * scale).abs().flatten(1).argmax(1)
        pose, place = best // count**2, best % count**2
        down, right = offsets[place // count], offsets[place % count]
    template = templates.gather(1, pose[:, None, None, None].expand(-1, 1, size, size))
    pad = room - side
    padded = F.pad(scene, (0, pad, 0, pad))
    mask = F.pad(torch.ones_like(scene), (0, pad, 0, pad))
    found = _roll(padded, -down, -right)[..., :size, :size]
    valid = _roll(mask, -down, -right)[..., :size, :size]
    mean = (found * valid).sum((-2, -1), keepdim=True) / valid.sum((-2, -1), keepdim=True)
    found = torch.where(valid > 0, found, mean)
    weights = (_smooth(valid) > 0.999).to(scene.dtype)
    maps = _correlation_map(template, found) * weights
    counted = weights.sum((1, 2, 3))
    total = maps.sum((1, 2, 3)) / counted.clamp_min(1)
    return torch.where(counted >= 0.2 * weights[0].numel(), total, torch.zeros_like(total))


def _hidden_ways(original: Tensor, published: Tensor) -> list[Tensor]:
    """Moved, mirrored, turned, smaller, in the low bits, on a few pixels only."""
    light_x, light_y = luminance(original), luminance(published)
    coarse_x, middle_y = _half(_half(light_x)), _half(light_y)
    coarse_y = _half(middle_y)
    ways = [
        _handicap(_search(_dihedral(coarse_x), coarse_y), SEARCH_PENALTY),
        _handicap(_search(_dihedral(coarse_x), middle_y), SEARCH_PENALTY),
    ]
    ways = [way[:, None] for way in ways]
    levels = (published * 255).round().to(torch.uint8)
    for bits in (1, 2, 4):
        low = _half(_half((levels & (2**bits - 1)).to(published.dtype)))
        ways.append(_correlation_map(coarse_x, low).mean((-2, -1)))
    return ways


def disclosure(original: Tensor, published: Tensor, search: bool = True) -> Tensor:
    """What of the original a person can see: the strongest local correlation over all ways of
    looking (inverted, squinting, from afar, one colour or a mix of them, brightened, through a
    veil, lines only, a part of it, ...); ``N``, 0 nothing to 1 all.

    Args:
        original, published: ``N x 3 x H x W`` in 0..1, RGB; H and W a multiple of 8.
        search: look for a face that was moved, mirrored, turned, shrunk or put into the low bits
            as well; a loss does without.
    """
    ways = _aligned_ways(original, published)
    if search:
        ways += _hidden_ways(original, published)
    return torch.cat(ways, 1).amax(1)


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


def ssim_and_ms_ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``ssim`` and multi-scale SSIM (Wang, Simoncelli, Bovik 2003) in one go; ``N`` each.

    MS-SSIM is over the first four of the paper's five scales with their weights made to sum to 1:
    the fifth is smaller than the window on a face of 112 px. Contrast-structure terms below 0
    count as 0; 0..1, 1 for equal images.

    Args:
        a, b: ``N x C x H x W`` in 0..1, sides of at least 88 px.

    Raises:
        ValueError: a side is too short for four scales.
    """
    if min(a.shape[-2:]) < 88:
        raise ValueError(f"sides of at least 88 px needed, got {tuple(a.shape)}")
    weights = [weight / sum(_MS_SSIM_WEIGHTS) for weight in _MS_SSIM_WEIGHTS]
    c1, c2 = 0.01**2, 0.03**2
    product = torch.ones_like(a[:, :, 0, 0])
    single = product
    for scale, weight in enumerate(weights):
        if scale:
            a, b = _half(a), _half(b)
        # Only the sum of the two variances is needed: four planes to smooth rather than five.
        planes = (a, b, torch.addcmul(a * a, b, b), a * b)
        mean_a, mean_b, squares, cross = map(_smooth, planes)
        means, ab = mean_a * mean_a + mean_b * mean_b, mean_a * mean_b
        structure = (2 * (cross - ab) + c2) / (squares - means + c2)
        if scale in (0, len(weights) - 1):
            full = structure * (2 * ab + c1) / (means + c1)
            if scale == 0:
                single = full.mean((-2, -1))
            else:
                structure = full
        product = product * structure.mean((-2, -1)).clamp_min(0) ** weight
    return single.mean(1), product.mean(1)


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
