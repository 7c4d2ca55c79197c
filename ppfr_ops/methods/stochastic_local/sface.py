"""The identity encoder of version 2: SFace (OpenCV Zoo 2021dec, Apache-2.0).

A MobileNet (Howard et al. 2017) with parametric rectifiers, batch normalisation folded into the
convolutions, trained by Zhong et al. (SFace, IEEE TIP 2021, arXiv 2205.12010).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

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
        example = torch.zeros(2, 3, 112, 112)
        return torchscript.compiled(self, example)


def sface_from_torchscript(model: torch.jit.ScriptModule) -> SFaceEncoder:
    """Rebuild the encoder from the TorchScript file of the same network.

    Raises:
        ValueError: another network.
    """
    encoder = SFaceEncoder()
    convolutions = [layer for layer in encoder.layers if isinstance(layer, nn.Conv2d)]
    rectifiers = [layer for layer in encoder.layers if isinstance(layer, nn.PReLU)]
    try:
        for index, (layer, rectifier) in enumerate(zip(convolutions, rectifiers, strict=True)):
            layer.weight.data = getattr(model.w, str(index))().clone()
            assert layer.bias is not None
            layer.bias.data = getattr(model, f"o{index}").clone()
            rectifier.weight.data = getattr(model, f"a{index}").flatten().clone()
        # the batch normalisation before the head, folded into it
        head, gain, shift = model.fc(), model.bk.flatten(), model.bo.flatten()
        weight = head.view(FEATURE_SIZE, 1024, 49)
        encoder.head.weight.data = (weight * gain[None, :, None]).flatten(1)
        encoder.head.bias.data = model.fb + (weight.sum(2) * shift[None]).sum(1)
    except AttributeError:
        raise ValueError("not the TorchScript file of SFace") from None
    return encoder.eval().requires_grad_(False)


def as_surrogate(
    encoder: SFaceEncoder, dtype: torch.dtype = torch.bfloat16
) -> Callable[[Tensor], Tensor]:
    """The same function with a quick way back to its input: 24 ms a face there and back on one core
    where autograd takes 68, most of it for the gradient of slopes that stay as they are.
    """
    steps: list[Callable[[Tensor], Tensor]] = []
    for layer in encoder.layers:
        weight = layer.weight.detach().to(dtype)  # type: ignore[operator]
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            weight = weight.contiguous(memory_format=torch.channels_last)
            rest = (weight, layer.bias.detach().to(dtype), layer.stride[0], layer.groups)
            steps.append(partial(_applied, _Convolution, rest))
        else:
            steps.append(partial(_applied, _Rectifier, (weight,)))

    def layers(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return lambda pixels: encoder.through(layers, pixels, dtype)


def _applied(function: type[torch.autograd.Function], rest: tuple[Any, ...], x: Tensor) -> Tensor:
    out: Tensor = function.apply(x, *rest)
    return out


class _Rectifier(torch.autograd.Function):
    """``F.prelu`` of slopes that are not trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope.view(1, -1, 1, 1))
        return F.prelu(x, slope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, slope = ctx.saved_tensors
        positive = torch.ops.aten.threshold_backward(grads[0], x, 0)
        return torch.addcmul(grads[0] * slope, positive, 1 - slope), None


class _Convolution(torch.autograd.Function):
    """A convolution that is not trained, of odd size and same padding, all channels together or
    each by itself; the gradient of its input is a convolution, too."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, groups: int
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.groups, ctx.size = stride, groups, x.shape[2:]
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, 1, groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,), grad = ctx.saved_tensors, grads[0]
        back = (weight if ctx.groups > 1 else weight.transpose(0, 1)).flip(2, 3)
        if ctx.stride > 1:
            spread = grad.new_zeros(*grad.shape[:2], *ctx.size)
            spread = spread.contiguous(memory_format=torch.channels_last)
            spread[:, :, :: ctx.stride, :: ctx.stride] = grad
            grad = spread
        back = back.contiguous(memory_format=torch.channels_last)
        given = F.conv2d(grad, back, None, 1, back.shape[-1] // 2, 1, ctx.groups)
        return given, None, None, None, None
