"""The mask generator: a U-Net that draws a bounded perturbation for a face."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppfr_ops.imaging.arrays import FACE_SIZE

BLUR = (0.25, 0.5, 0.25)
"""Smoothing of the perturbation along rows and columns: single-pixel patterns do not survive a
codec, and look like noise to the eye."""


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


class MaskGenerator(nn.Module):
    """Faces to perturbations (U-Net, Ronneberger et al. 2015, on pixels unshuffled by four).

    The perturbation is light that all channels share, plus a little colour: one pattern for all
    faces, and what the face adds to it. It is smoothed, and bounded by ``tanh``: no pixel ever
    changes by more than ``bound * (1 + COLOUR)``.

    Args:
        bound: of the light, in 0..1 of the grey scale.
        width: channels at 28x28; twice and three times as many at 14x14 and 7x7.
    """

    COLOUR = 0.35
    """Bound of a channel's own share, relative to that of the light."""

    def __init__(self, bound: float = 0.16, width: int = 48) -> None:
        super().__init__()
        self.bound, self.width = bound, width
        sizes = [width, 2 * width, 3 * width]
        self.down = nn.ModuleList(
            _block(inputs, outputs)
            for inputs, outputs in zip([48, *sizes[:-1]], sizes, strict=True)
        )
        self.up = nn.ModuleList(
            _block(sizes[i + 1] + sizes[i], sizes[i]) for i in reversed(range(2))
        )
        self.out = nn.Conv2d(width, 64, 3, padding=1)
        nn.init.zeros_(self.out.weight)  # at first a face adds nothing to the pattern for all
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)
        self.universal = nn.Parameter(torch.zeros(4, FACE_SIZE // 2, FACE_SIZE // 2))
        self.register_buffer("kernel", torch.tensor(BLUR), persistent=False)

    kernel: Tensor

    def forward(self, faces: Tensor, universal: bool = False) -> Tensor:
        """Perturbations.

        Args:
            faces: ``N x 3 x 112 x 112`` in 0..1, RGB.
            universal: only the pattern for all faces.

        Returns:
            ``N x 3 x 112 x 112``, to be added to the faces.
        """
        size = (FACE_SIZE, FACE_SIZE)
        drawn = F.interpolate(self.universal[None], size, mode="bilinear", align_corners=False)
        if not universal:
            drawn = drawn + self._of_face(faces)
        light, colour = drawn[:, :1], drawn[:, 1:]
        return self.bound * self._smooth(torch.tanh(light) + self.COLOUR * torch.tanh(colour))

    def _of_face(self, faces: Tensor) -> Tensor:
        """Light and three colours before their bound, ``N x 4 x 112 x 112``."""
        x = F.pixel_unshuffle(2 * faces - 1, 4)
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        return F.pixel_shuffle(self.out(x), 4)

    def _smooth(self, planes: Tensor) -> Tensor:
        channels = planes.shape[1]
        padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
        window = torch.outer(self.kernel, self.kernel).expand(channels, 1, 3, 3)
        return F.conv2d(padded, window, groups=channels)
