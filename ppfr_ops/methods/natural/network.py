"""MobileStyleGAN: a normal to a style, styles by layer to a photograph of nobody.

After Belousov, "MobileStyleGAN: A Lightweight Convolutional Neural Network for High-Fidelity Image
Synthesis" (arXiv 2104.04767). Differentiable, with a style for every layer, and cut at 64 and at
256 px, where a small head shows what the whole network would, at twice that.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

STYLE = 512
"""Numbers in a style."""

LAYERS = {4: (0, 1), 8: (1, 4), 16: (4, 7), 32: (7, 10), 64: (10, 13)}
"""The layers whose styles shape each resolution, up to 64 px; beyond, the last style holds on."""

DEPTH = 13
"""Layers that have a style of their own."""
AROUND = 8
"""From this resolution on a second style shapes what is not the head, px."""

LAST = torch.channels_last


@lru_cache(maxsize=16)
def _head(side: int) -> Tensor:
    """Where the head is, with a soft edge: ``side * side x 2``, shares of around and of head."""
    place = (torch.arange(side) + 0.5) / side
    down, across = torch.meshgrid(place, place, indexing="ij")
    far = torch.sqrt(((across - 0.5) / 0.36) ** 2 + ((down - 0.54) / 0.50) ** 2)
    inside = torch.sigmoid((1 - far) / 0.10).flatten()
    return torch.stack([1 - inside, inside], 1)


def _unwavelet(x: Tensor) -> Tensor:
    """Inverse Haar transform: ``N x 4c x h x w`` to ``N x c x 2h x 2w``; the first c are the low
    band, then three for each c."""
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1) / 2
    low, rest = x[..., : c // 4], x[..., c // 4 :].reshape(n, h, w, c // 4, 3)
    rows, columns, both = rest.unbind(4)
    high, deep, plus, minus = low + rows, low - rows, columns + both, columns - both
    top = torch.stack([high + plus, high - plus], 3)
    bottom = torch.stack([deep + minus, deep - minus], 3)
    return torch.stack([top, bottom], 2).view(n, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)


def pixels(y: Tensor) -> NDArray[np.uint8]:
    """The first of ``N x 3 x side x side``, -1..1, as uint8 ``side x side x 3``."""
    found = ((y[0] + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
    return np.ascontiguousarray(found.permute(1, 2, 0).cpu().numpy())


class Mapping(nn.Module):
    """Normals ``N x 512`` to styles ``N x 512``."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.depth = len(tensors) // 2
        for name, value in tensors.items():
            self.register_buffer(name.replace(".", "_"), value)

    def forward(self, z: Tensor) -> Tensor:
        x = z * torch.rsqrt((z * z).mean(1, keepdim=True) + 1e-8)
        for i in range(self.depth):
            weight, bias = getattr(self, f"weight_{i}"), getattr(self, f"bias_{i}")
            x = F.leaky_relu(F.linear(x, weight, bias), 0.2) * 2**0.5
        return x


class Synthesis(nn.Module):
    """Styles ``N x 13 x 512`` to features at 64 px or less; with the large part's tensors too, to
    the picture at 1024 px in -1..1. A fourteenth style shapes what is not the head."""

    affine: nn.ParameterList
    offset: nn.ParameterList
    kernels: nn.ParameterList
    noise: nn.ParameterList
    biases: nn.ParameterList
    start: nn.ParameterList

    def __init__(self, tensors: dict[str, Tensor], precision: torch.dtype) -> None:
        super().__init__()
        parts: dict[str, list[Tensor]] = {}
        for name in sorted(tensors, key=lambda name: int(name.rpartition(".")[2])):
            parts.setdefault(name.split(".")[0], []).append(tensors[name])
        for part, values in parts.items():
            frozen = [
                nn.Parameter(v.contiguous(memory_format=LAST) if v.dim() == 4 else v, False)
                for v in (value.to(precision) for value in values)
            ]
            setattr(self, part, nn.ParameterList(frozen))

    def _scaled(self, x: Tensor, styles: Tensor, layer: int) -> Tensor:
        """Features by the layer's scales: the head's, and those of what is around it."""
        affine, offset = self.affine[layer], self.offset[layer]
        scale = F.linear(styles[:, min(layer, DEPTH - 1)], affine, offset)[:, :, None, None]
        side = x.shape[-1]
        if side < AROUND or styles.shape[1] == DEPTH:
            return x * scale
        around = F.linear(styles[:, DEPTH], affine, offset)
        scales = _head(side).to(scale) @ torch.stack([around, scale.flatten(1)], 1)
        return x * scales.unflatten(1, (side, side)).permute(0, 3, 1, 2)

    def features(self, styles: Tensor, resolution: int, seen: Tensor | None = None) -> Tensor:
        """``N x 512 x resolution x resolution`` (fewer channels above 64 px), in the weights'
        precision; ``seen``: those of fewer pixels, to go on from."""
        styles = styles.to(self.start[0].dtype)
        x, done = seen, 0
        if x is not None:
            done = x.shape[-1].bit_length() - 3
        else:
            x = self._scaled(self.start[0].expand(len(styles), -1, -1, -1), styles, 0)
            x = self._shown(F.conv2d(x, self.kernels[0], self._bias(0), padding=1), 0)
            x = x.contiguous(memory_format=LAST)
        layer, kernel, number = 1 + 3 * done, 1 + 4 * done, 1 + 2 * done
        for _ in range(resolution.bit_length() - 3 - done):
            x = _unwavelet(self._scaled(x, styles, layer))
            layer += 1
            for _ in range(2):
                x = self._scaled(x, styles, layer)
                x = F.conv2d(x, self.kernels[kernel], padding=1, groups=x.shape[1])
                x = F.conv2d(x, self.kernels[kernel + 1], self._bias(number))
                x = self._shown(x, number)
                layer, kernel, number = layer + 1, kernel + 2, number + 1
        return x

    def _bias(self, number: int) -> Tensor:
        return self.biases[number].flatten()

    def _shown(self, x: Tensor, number: int) -> Tensor:
        """With the layer's noise, rectified; in place, for that is most of the time."""
        return F.leaky_relu_(x.add_(self.noise[number]), 0.2)

    def forward(self, styles: Tensor, seen: Tensor | None = None) -> Tensor:
        """``N x 3 x 1024 x 1024``, -1..1; ``seen`` as for ``features``."""
        x = self.features(styles, 512, seen)
        x = self._scaled(x, styles.to(x.dtype), 22)
        shown = F.conv2d(x, self.kernels[-1]) + self.biases[-1]
        return _unwavelet(shown.float())


class Head(nn.Module):
    """Features, and the style of layer 11, centred and divided by 0.5, to a picture of twice as
    many pixels a side, ``N x 3 x side x side`` in -1..1: what the whole network would show,
    reduced."""

    def __init__(self, width: int = 96, channels: int = 512) -> None:
        super().__init__()
        self.m, self.m2 = nn.Linear(STYLE, channels), nn.Linear(STYLE, width)
        self.a, self.b = nn.Conv2d(channels, width, 1), nn.Conv2d(width, width, 3, padding=1)
        self.o, self.lin = nn.Conv2d(width, 12, 1), nn.Conv2d(channels, 12, 1)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        style = style.to(features.dtype)
        x = features * self.m(style)[:, :, None, None]
        h = F.leaky_relu_(self.a(x), 0.2)
        h = F.leaky_relu_(self.b(h * self.m2(style)[:, :, None, None]), 0.2)
        return _unwavelet((self.lin(x) + self.o(h)).float())


class Silhouette(nn.Module):
    """Features at 64 px to how surely each pixel of a picture of 128 px shows the person and not
    what is behind, ``N x 1 x 128 x 128``, before the logistic function."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.a = nn.Conv2d(512, width, 1)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.c = nn.Conv2d(width, width, 3, padding=4, dilation=4)
        self.o = nn.Conv2d(width, 4, 1)

    def forward(self, features: Tensor) -> Tensor:
        x = F.leaky_relu(self.a(features), 0.2)
        x = x + F.leaky_relu(self.b(x), 0.2)
        x = x + F.leaky_relu(self.c(x), 0.2)
        return _unwavelet(self.o(x).float())
