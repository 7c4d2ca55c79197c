"""A recogniser that stands noise, without training a network: a linear denoiser in front of it and
a linear map behind (denoised smoothing, Salman et al., NeurIPS 2020, with Wiener's filter for the
denoiser: the best linear one).

Pictures are halved first (noise is white, faces are not), so the filter works on 56 x 56 x 3. The
leading principal components of faces are shrunk by ``v / (v + s^2)``, v a component's variance, s
the noise's standard deviation; what lies outside them is filtered as stationary, channel by
channel. The map behind is a ridge regression from templates of denoised noisy faces to those of
the clean ones.

The learned denoiser goes on from the filter, on halved pictures like it: a small U-net for what a
linear filter cannot know, whose last layer starts at zero. It is taught clean pixels first, then
besides what the recogniser behind it makes of them (the stability loss of the same paper). The
recogniser itself stays as it is.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn import functional

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces, in_chunks
from ppfr_ops.lab.distill.reading import opened, pixels
from ppfr_ops.recognizers import Embeddings

HALF = FACE_SIZE // 2
COMPONENTS = 400
KERNEL = 11
_RIDGE = 1e-3
_CHANNELS = (32, 64, 96)
"""At 28, 14 and 7 px."""
_PIXELS_ONLY = 0.5
"""Share of the training before the recogniser is looked at."""
_PIXELS = 10.0
"""Weight of the mean squared error of pixels of 0..1 beside ``1 - cosine``."""


class Wiener(nn.Module):
    """``N x 3 x 112 x 112``, 0..255, noisy, to the same, denoised."""

    mean: Tensor
    basis: Tensor
    gains: Tensor
    kernel: Tensor

    def __init__(self, components: int) -> None:
        super().__init__()
        size = 3 * HALF * HALF
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.zeros(size, components))
        self.register_buffer("gains", torch.zeros(components))
        self.register_buffer("kernel", torch.zeros(3, 1, KERNEL, KERNEL))

    def forward(self, faces: Tensor) -> Tensor:
        return enlarged(self.halved(functional.avg_pool2d(faces, 2)))

    def halved(self, noisy: Tensor) -> Tensor:
        """``N x 3 x 56 x 56`` in and out: pictures that were halved."""
        x = noisy.flatten(1) - self.mean
        parts = x @ self.basis
        rest = (x - parts @ self.basis.t()).reshape(-1, 3, HALF, HALF)
        rest = functional.conv2d(rest, self.kernel, padding=KERNEL // 2, groups=3)
        clean = self.mean + (parts * self.gains) @ self.basis.t() + rest.flatten(1)
        return clean.reshape(-1, 3, HALF, HALF)


def enlarged(half: Tensor) -> Tensor:
    """``N x 3 x 56 x 56`` to ``N x 3 x 112 x 112``, within 0..255."""
    whole = functional.interpolate(
        half, size=(FACE_SIZE, FACE_SIZE), mode="bilinear", align_corners=False
    )
    return whole.clamp(0, 255)


def wiener(faces: Faces, sigma: float, components: int = COMPONENTS) -> Wiener:
    """The filter for noise of ``sigma`` (pixels of 0..1), from faces of other people.

    Args:
        faces: uint8 ``N x 112 x 112 x 3``, some thousands.
    """
    halves = in_chunks(lambda part: functional.avg_pool2d(pixels(part), 2), faces, size=256)
    flat = halves.reshape(len(halves), -1)
    mean = flat.mean(0)
    centred = flat - mean
    components = min(components, len(faces) // 4)
    _, values, vectors = torch.svd_lowrank(torch.from_numpy(centred), components, niter=2)
    variances = (values**2 / len(flat)).numpy()
    noise = (255 * sigma / 2) ** 2  # four pixels were averaged
    filter_ = Wiener(components)
    basis = vectors.numpy()
    rest = (centred - centred @ basis @ basis.T).reshape(halves.shape)
    filter_.mean.copy_(torch.from_numpy(mean))
    filter_.basis.copy_(vectors)
    filter_.gains.copy_(torch.from_numpy(variances / (variances + noise)))
    filter_.kernel.copy_(torch.from_numpy(_stationary(rest, noise)))
    return filter_


def _stationary(rest: NDArray[np.float32], noise: float) -> NDArray[np.float32]:
    """Kernels ``3 x 1 x K x K`` of the filter ``S / (S + noise)``, S the mean power spectrum."""
    power = (np.abs(np.fft.fft2(rest)) ** 2).mean(0) / (HALF * HALF)
    kernel = np.fft.fftshift(np.fft.ifft2(power / (power + noise)).real, axes=(1, 2))
    low = HALF // 2 - KERNEL // 2
    return kernel[:, None, low : low + KERNEL, low : low + KERNEL].astype(np.float32)


class Denoised(nn.Module):
    """Filter, recogniser (TorchScript), map. Our interface."""

    def __init__(self, path: str, filter_: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.network = opened(path, "the recogniser behind the denoiser")
        self.filter = filter_
        self.map = nn.Linear(dimensions, dimensions)

    def behind(self, faces: Tensor) -> Tensor:
        """Templates of denoised faces, before the map."""
        done: Tensor = self.network(self.filter(faces))
        return done / done.norm(dim=1, keepdim=True)

    def trained(self) -> list[Tensor]:
        """What an optimiser moves: a learned denoiser, nothing else."""
        return list(self.filter.parameters())

    def forward(self, faces: Tensor) -> Tensor:
        return functional.normalize(self.map(self.behind(faces)), dim=1)


class Enrolment(nn.Module):
    """The recogniser of a :class:`Denoised` alone, for clean pictures: templates that those of the
    other, of noisy pictures, are compared with. Our interface."""

    centre: Tensor

    def __init__(self, denoised: Denoised, target: Embeddings) -> None:
        super().__init__()
        self.network = denoised.network
        self.register_buffer("centre", torch.from_numpy(target.mean(0)))

    def forward(self, faces: Tensor) -> Tensor:
        return functional.normalize(functional.normalize(self.network(faces), dim=1) - self.centre)


def map_behind(
    network: Denoised, faces: Faces, target: Embeddings, sigma: float, log: Callable[[str], None]
) -> None:
    """Fit the linear map of a denoised recogniser, in place.

    Args:
        faces: of other people, uint8 ``N x 112 x 112 x 3``.
        target: the recogniser's templates of them, clean, float32 ``N x D``, unit length.
        sigma: of the noise that it is to stand, pixels of 0..1.
    """

    def behind(part: Faces) -> Tensor:
        clean = pixels(part)
        return network.behind(clean + 255 * sigma * torch.randn_like(clean))

    log(f"map: templates of {len(faces):,} faces")
    with torch.inference_mode():
        x = in_chunks(behind, faces, size=32).astype(np.float64)
    fitted = Ridge(_RIDGE * len(x) / x.shape[1]).fit(x, target - target.mean(0, dtype=np.float64))
    with torch.no_grad():
        network.map.weight.copy_(torch.from_numpy(fitted.coef_))
        # the mean is taken away, not put back: cosines of centred templates tell people apart
        network.map.bias.copy_(torch.from_numpy(fitted.intercept_))


# -- the learned one ------------------------------------------------------------------------


class _Beside(nn.Module):
    """``x + f(x)``, f two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


class Cleaner(nn.Module):
    """``N x 3 x 112 x 112``, 0..255, noisy, to the same, denoised."""

    def __init__(self, filter_: Wiener) -> None:
        super().__init__()
        self.filter = filter_
        a, b, c = _CHANNELS
        self.enter = nn.Sequential(nn.Conv2d(24, a, 3, padding=1), nn.PReLU(a), _Beside(a))
        self.middle = nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.PReLU(b), _Beside(b))
        self.deep = nn.Sequential(nn.Conv2d(b, c, 3, 2, 1), nn.PReLU(c), _Beside(c))
        self.up_middle = nn.Conv2d(c, b, 3, padding=1)
        self.up = nn.Conv2d(b, a, 3, padding=1)
        last = nn.Conv2d(a, 12, 3, padding=1)
        for tensor in last.parameters():
            nn.init.zeros_(tensor)
        self.leave = nn.Sequential(_Beside(a), last)

    def halved(self, noisy: Tensor) -> Tensor:
        """``N x 3 x 56 x 56`` in and out: pictures that were halved."""
        rough = self.filter.halved(noisy)
        seen = functional.pixel_unshuffle(torch.cat([noisy, rough], 1) / 127.5 - 1, 2)
        fine = self.enter(seen)
        middle = self.middle(fine)
        deep = functional.interpolate(self.deep(middle), size=(14, 14))
        middle = functional.relu(middle + self.up_middle(deep))
        middle = functional.interpolate(middle, size=(28, 28))
        fine = functional.relu(fine + self.up(middle))
        return rough + 127.5 * functional.pixel_shuffle(self.leave(fine), 2)

    def forward(self, faces: Tensor) -> Tensor:
        return enlarged(self.halved(functional.avg_pool2d(faces, 2)))


def cleaning_loss(
    cleaner: Cleaner,
    recogniser: nn.Module,
    clean: Tensor,
    noisy: Tensor,
    wanted: Tensor,
    share: float,
) -> Tensor:
    """What a learned denoiser in front of a recogniser is taught by.

    Args:
        clean, noisy: ``N x 3 x 112 x 112``, 0..255.
        wanted: the recogniser's templates of the clean faces, ``N x D``, unit length.
        share: of the training that is over.
    """
    half = cleaner.halved(functional.avg_pool2d(noisy, 2))
    pixels = functional.mse_loss(half / 255, functional.avg_pool2d(clean, 2) / 255)
    if share < _PIXELS_ONLY:
        return _PIXELS * pixels
    template = functional.normalize(recogniser(enlarged(half)), dim=1)
    return _PIXELS * pixels + 1 - (template * wanted).sum(1).mean()
