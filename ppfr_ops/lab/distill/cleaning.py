"""A learned denoiser: Wiener's filter, and a small U-net for what a linear filter cannot know.

It works on halved pictures like the filter and begins where that ends: its last layer starts at
zero. It is taught clean pixels first, then besides what the recogniser behind it makes of them
(the stability loss of denoised smoothing, Salman et al., NeurIPS 2020). The recogniser itself
stays as it is.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr_ops.lab.distill.denoising import Wiener, enlarged

_CHANNELS = (32, 64, 96)
"""At 28, 14 and 7 px."""
_PIXELS_ONLY = 0.5
"""Share of the training before the recogniser is looked at."""
_PIXELS = 10.0
"""Weight of the mean squared error of pixels of 0..1 beside ``1 - cosine``."""


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
