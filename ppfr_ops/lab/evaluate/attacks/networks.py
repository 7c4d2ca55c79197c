"""Networks that recovery attackers train, and tensors to and from pictures.

``unet`` (U-Net, Ronneberger et al. 2015) passes detail over skips, ``residual`` (an encoder, a
residual trunk and a decoder, Johnson et al. 2016) has to carry everything through a bottleneck
at 14x14 and so looks at the face as a whole. Both see the image pixel-unshuffled by four, the
published values normalised over the training set (a method that merely turns the contrast down is
not rewarded for it) and, beside them, every image stretched by itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.measures import ssim

View = NDArray[Any]
"""What an attacker sees: uint8 or float32 ``N x 112 x 112 x 3k`` in 0..255, k pictures of every
face stacked along the channels."""

Context = NDArray[np.float32]
"""What an attacker knows besides, a vector a face: float32 ``N x D``, any scale."""

Publish = Callable[[Faces, NDArray[np.int64], np.random.Generator], View | tuple[View, Context]]
"""(faces ``N x 112 x 112 x 3``, their indices, generator) -> the attacker's view of them."""

_FOLD = 4  # px: pixel-unshuffle in front of every network


class _Block(nn.Module):
    """Pre-activation residual block, two 3x3 convolutions."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _up(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1), nn.Upsample(scale_factor=2, mode="nearest")
    )


class _UNet(nn.Module):
    """Trunk over 28x28, 14x14 and 7x7 with skips; about 2 M parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        a, b, c = 48, 96, 192
        self.stem = nn.Sequential(nn.Conv2d(channels, a, 3, padding=1), _Block(a))
        self.down1 = nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), _Block(b))
        self.down2 = nn.Sequential(nn.Conv2d(b, c, 3, stride=2, padding=1), _Block(c), _Block(c))
        self.up1 = _up(c, b)
        self.dec1 = nn.Sequential(nn.Conv2d(2 * b, b, 3, padding=1), _Block(b))
        self.up0 = _up(b, a)
        self.dec0 = nn.Sequential(nn.Conv2d(2 * a, a, 3, padding=1), _Block(a))
        self.width, self.coarse = a, c * 7 * 7

    def forward(self, x: Tensor, coarse_extra: Tensor | None = None) -> Tensor:
        fine = self.stem(x)
        middle = self.down1(fine)
        coarse = self.down2(middle)
        if coarse_extra is not None:
            coarse = coarse + coarse_extra.view_as(coarse)
        middle = self.dec1(torch.cat([middle, self.up1(coarse)], 1))
        return self.dec0(torch.cat([fine, self.up0(middle)], 1))


class _Residual(nn.Module):
    """Bottleneck at 14x14 with a dilated residual trunk, no skips; about 2 M parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width, blocks = 128, 6
        self.width, self.coarse = 48, 0
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            *(_Block(width, dilation=(1, 2, 4)[i % 3]) for i in range(blocks)),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.ConvTranspose2d(width, self.width, 4, stride=2, padding=1),
            _Block(self.width),
        )

    def forward(self, x: Tensor, coarse_extra: Tensor | None = None) -> Tensor:
        return self.body(x)


NETS: dict[str, type[_UNet] | type[_Residual]] = {"unet": _UNet, "residual": _Residual}


class Attacker(nn.Module):
    """A trunk between normalisation and output, published planes to faces.

    Shapes: ``N x 3k x 112 x 112`` in 0..1, and a context of ``N x context`` if that is not 0, to
    ``N x 3 x 112 x 112``, about 0..1 (not clipped).
    """

    mean: Tensor
    std: Tensor
    base: Tensor
    context_mean: Tensor
    context_std: Tensor

    def __init__(self, net: str = "unet", channels: int = 3, context: int = 0) -> None:
        super().__init__()
        if net not in NETS:
            raise ValueError(f"unknown attacker {net!r}; there are: {', '.join(NETS)}")
        folded = channels * _FOLD**2
        self.trunk = NETS[net](2 * folded)
        self.known: nn.Module | None = None
        if context:
            if not self.trunk.coarse:
                raise ValueError(f"attacker {net!r} takes no context")
            self.known = nn.Sequential(
                nn.Linear(context, 384), nn.SiLU(), nn.Linear(384, self.trunk.coarse)
            )
        self.direct = folded if net == "unet" else 0
        self.head = nn.Conv2d(self.trunk.width + self.direct, 3 * _FOLD**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, channels, 1, 1), 0.25))
        self.register_buffer("base", torch.full((1, 3, FACE_SIZE, FACE_SIZE), 0.5))
        self.register_buffer("context_mean", torch.zeros(1, context))
        self.register_buffer("context_std", torch.ones(1, context))

    @torch.no_grad()
    def calibrate(self, published: Tensor, context: Tensor | None, originals: Tensor) -> None:
        """Input statistics from published images; the mean original is where training starts."""
        if context is not None:
            self.context_mean.copy_(context.mean(0, keepdim=True))
            self.context_std.copy_(context.std(0, keepdim=True).clamp_min(1e-6))
        self.mean.copy_(published.mean((0, 2, 3), keepdim=True))
        self.std.copy_(published.std((0, 2, 3), keepdim=True).clamp_min(0.5 / 255))
        self.base.copy_(originals.mean(0, keepdim=True))

    def forward(self, published: Tensor, context: Tensor | None = None) -> Tensor:
        planes = (published - self.mean) / self.std
        spread = published.std((-2, -1), keepdim=True).clamp_min(0.5 / 255)
        own = (published - published.mean((-2, -1), keepdim=True)) / spread
        folded = F.pixel_unshuffle(torch.cat([planes, own], 1), _FOLD)
        folded = folded.contiguous(memory_format=torch.channels_last)
        extra = None
        if self.known is not None:
            assert context is not None
            extra = self.known((context - self.context_mean) / self.context_std)
        features = self.trunk(folded, extra)
        if self.direct:
            features = torch.cat([features, folded[:, : self.direct]], 1)
        else:
            features = F.silu(features)
        return self.base + F.pixel_shuffle(self.head(features), _FOLD).float()


def recovery_loss(recovered: Tensor, originals: Tensor) -> Tensor:
    """L1 + 0.3 (1 - SSIM), SSIM at every other position; a scalar."""
    return F.l1_loss(recovered, originals) + 0.3 * (1 - ssim(recovered, originals, stride=2).mean())


def to_tensor(images: View) -> Tensor:
    """uint8 or float ``N x H x W x C`` in 0..255 to float32 ``N x C x H x W`` in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """float ``N x C x H x W`` in 0..1 to uint8 ``N x H x W x C``, clipped and rounded."""
    scaled = images.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def mean_tensor(faces: Faces) -> Tensor:
    mean = faces.mean(0, dtype=np.float64).astype(np.float32) / 255
    return torch.from_numpy(mean).permute(2, 0, 1)[None]


def mean_face(faces: Faces) -> Faces:
    """The attacker who learned nothing: the mean training face, uint8 ``112 x 112 x 3``."""
    return to_uint8(mean_tensor(faces))[0]
