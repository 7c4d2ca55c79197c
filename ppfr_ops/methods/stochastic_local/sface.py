"""The identity encoder of version 2: SFace (OpenCV Zoo 2021dec, Apache-2.0).

A MobileNet (Howard et al. 2017) with parametric rectifiers, batch normalisation folded into the
convolutions, trained by Zhong et al. (SFace, IEEE TIP 2021, arXiv 2205.12010).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppfr_ops import torchscript

FEATURE_SIZE = 128

_LAYOUT = (  # (input, output, stride) of every depthwise-separable pair after the stem
    (32, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    *((512, 512, 1),) * 5,
    (512, 1024, 2),
    (1024, 1024, 1),
)
_CENTRE, _SCALE = 127.5, 1 / 128


class SFaceEncoder(nn.Module):
    """RGB 0..255, ``N x 3 x 112 x 112``, to identity embeddings, ``N x 128``, unit length."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.PReLU(32)]
        for inputs, outputs, stride in _LAYOUT:
            layers += [
                nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs),
                nn.PReLU(inputs),
                nn.Conv2d(inputs, outputs, 1),
                nn.PReLU(outputs),
            ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(1024 * 7 * 7, FEATURE_SIZE)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.through(self.layers, pixels, next(self.layers.parameters()).dtype)

    def through(
        self, layers: Callable[[Tensor], Tensor], pixels: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """What ``forward`` gives, by another way through the layers."""
        x = ((pixels - _CENTRE) * _SCALE).to(dtype).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.head(layers(x).flatten(1).float()), dim=1)

    def heavy(self) -> tuple[nn.Module, ...]:
        """The layers that bfloat16 does for, where it pays."""
        return (self.layers,)

    @torch.no_grad()
    def compiled(self) -> Callable[[Tensor], Tensor]:
        """The same, rectifiers fused into convolutions, for a CPU; a fifth faster. Not to be
        pickled."""
        return torchscript.compiled(self, torch.zeros(2, 3, 112, 112))
