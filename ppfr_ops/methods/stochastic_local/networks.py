"""Networks of the learned anonymizer: the frozen identity encoder and the generator.

``IdentityEncoder`` is dlib's ``dlib_face_recognition_resnet_model_v1`` (public domain), a ResNet
with 29 convolutions, rebuilt with its affine layers folded into the convolutions.
"""

import math
from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppfr_ops.imaging.arrays import FACE_SIZE

_ENCODER_MEAN = (122.782, 117.001, 104.298)
_ENCODER_CROP = ((0.8981, 0.0, 0.0133), (0.0, 0.8981, 0.2582))
_ENCODER_STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
CODE_SIZE = 128


M = TypeVar("M", bound=nn.Module)


def place(module: M, device: str) -> M:
    """Onto the device, in the memory layout that convolutions are fastest in."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Residual(nn.Module):
    """Two 3x3 convolutions; a downsampling block pools its shortcut and pads it with zeros."""

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.c1 = nn.Conv2d(inputs, outputs, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.c2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c2(torch.relu(self.c1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            height, width = max(x.shape[-2], y.shape[-2]), max(x.shape[-1], y.shape[-1])
            x = F.pad(
                x, (0, width - x.shape[-1], 0, height - x.shape[-2], 0, y.shape[1] - x.shape[1])
            )
            y = F.pad(y, (0, width - y.shape[-1], 0, height - y.shape[-2]))
        return torch.relu(x + y)


class IdentityEncoder(nn.Module):
    """RGB 0..255, ``N x 3 x 112 x 112``, to identity embeddings, ``N x 128``, unit length."""

    crop: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        blocks: list[nn.Module] = []
        channels = 32
        for width, count, down in _ENCODER_STAGES:
            for index in range(count):
                blocks.append(_Residual(channels, width, down and index == 0))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(256, CODE_SIZE, bias=False)
        self.register_buffer("crop", torch.tensor(_ENCODER_CROP))
        self.register_buffer("mean", torch.tensor(_ENCODER_MEAN).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        theta = self.crop.expand(len(pixels), -1, -1)
        grid = F.affine_grid(theta, [len(pixels), 3, 150, 150], align_corners=False)
        crop = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        x = ((crop - self.mean) / 256).to(self.stem.weight.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(torch.relu(self.stem(x)), 3, 2)
        return F.normalize(self.head(self.blocks(x).mean((2, 3))).float(), dim=1)

    def heavy(self) -> tuple[nn.Module, ...]:
        """The layers that bfloat16 does for, where it pays."""
        return self.stem, self.blocks, self.head


def encoder_from_torchscript(model: torch.jit.ScriptModule) -> IdentityEncoder:
    """Rebuild the encoder from the TorchScript file of the same network."""
    weights = dict(model.named_buffers())
    encoder = IdentityEncoder()

    def fold(layer: nn.Conv2d, prefix: str) -> None:
        gain, shift = weights[prefix + ".g"].flatten(), weights[prefix + ".h"].flatten()
        layer.weight.data = weights[prefix + ".w"] * gain.view(-1, 1, 1, 1)
        assert layer.bias is not None
        layer.bias.data = weights[prefix + ".b"] * gain + shift

    fold(encoder.stem, "net.c0")
    for index, block in enumerate(encoder.blocks):
        assert isinstance(block, _Residual)
        fold(block.c1, f"net.b.{index}.c1")
        fold(block.c2, f"net.b.{index}.c2")
    encoder.head.weight.data = weights["net.fc"].t().contiguous()
    corners = weights["grid"][0]
    first, last = corners[0, 0], corners[-1, -1]
    scale, shift = (last - first) / (2 - 2 / 150), (last + first) / 2
    encoder.crop.copy_(torch.cat([scale.diag(), shift[:, None]], 1))
    return encoder.eval().requires_grad_(False)


class DrawLayout:
    """Where the parts of a draw lie: field, warp, pose and noise maps, in this order."""

    FIELD = (3, 6, 6)
    WARP = (2, 5, 5)
    POSE = (5,)
    NOISE = ((8, 7, 7), (8, 14, 14), (2, 28, 28))
    SIZE = sum(math.prod(shape) for shape in (FIELD, WARP, POSE, *NOISE))

    @classmethod
    def split(cls, draws: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """``N x SIZE`` to field, warp, pose and noise maps, in the shapes above."""
        shapes = (cls.FIELD, cls.WARP, cls.POSE, *cls.NOISE)
        flat = draws.split([math.prod(shape) for shape in shapes], dim=1)
        field, warp, pose, *noise = (
            part.reshape(len(draws), *shape) for part, shape in zip(flat, shapes, strict=True)
        )
        return field, warp, pose, noise


class _Refine(nn.Module):
    """A residual branch that the code modulates channel by channel; adds nothing at first."""

    def __init__(self, channels: int, hidden: int, code_size: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(code_size, 2 * channels)
        self.c1 = nn.Conv2d(channels, hidden, 3, padding=1)
        self.c2 = nn.Conv2d(hidden, channels, 3, padding=1)
        for layer in (self.modulation, self.c2):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        gain, shift = self.modulation(codes)[:, :, None, None].chunk(2, 1)
        return x + self.c2(F.silu(self.c1(x * (1 + gain) + shift)))


class Generator(nn.Module):
    """Identity code and draw to a picture of local features under a random global layout.

    The picture depends on the face through the code alone, so no attacker can get back more than
    the code holds (data processing inequality), whatever they know of the draw. What is drawn at
    random: noise maps at three scales that decide which local features stand where, a mirror, a
    small pose and a smooth warp that move them, and a low-frequency field that replaces the global
    features; the generator's own low frequencies are filtered out. The features are drawn in
    luminance, band-limited and of bounded contrast: colour, single-pixel patterns and saturation
    are where a network finds tricks that fool the surrogates and nobody else.
    """

    FINE = 0.7
    """px; what is finer is smoothed away."""
    LIMIT = 3.0
    """logits; bound of the signal."""

    def __init__(
        self,
        sigma: float = 5.0,
        field: float = 0.8,
        warp: float = 1.5,
        pose: float = 1.0,
        colour: float = 1.0,
        mirror: bool = False,
        refine: bool = False,
        sees_face: bool = False,
        code_size: int = CODE_SIZE,
    ) -> None:
        """
        Args:
            sigma: low-pass that is taken out of the generator's signal, px; 0 keeps all.
            field: standard deviation of the random low-frequency field, logits.
            warp: standard deviation of the random smooth displacement, px.
            pose: scale of the random shift (2.5 px), rotation (4 degrees) and zoom (4 %).
            colour: share of the field that differs between channels, 0..1; 0: a grey one.
            mirror: mirror every other picture, by the toss of a coin.
            refine: twice the weights, in residual branches at every scale.
            sees_face: open a second way past the code, for the ablation; never shipped.
            code_size: numbers in a code.
        """
        super().__init__()
        self.sigma, self.field, self.warp, self.pose = sigma, field, warp, pose
        self.colour, self.mirror, self.refine = colour, mirror, refine
        self.code_size = code_size
        n7, n14, n28 = (shape[0] for shape in DrawLayout.NOISE)
        self.code = nn.Linear(code_size, 96 * 49)
        self.c7 = nn.Conv2d(96 + n7, 96, 3, padding=1)
        self.c14 = nn.Conv2d(96 + n14, 96, 3, padding=1)
        self.c28 = nn.Conv2d(96 + n28, 64, 3, padding=1)
        self.c28b = nn.Conv2d(64, 64, 3, padding=1)
        self.c56 = nn.Conv2d(64, 48, 3, padding=1)
        self.c56b = nn.Conv2d(48, 48, 3, padding=1)
        self.out = nn.Conv2d(48, 4, 3, padding=1)
        sizes = ((96, 192), (96, 192), (64, 128), (48, 64)) if refine else ()
        self.branches = nn.ModuleList(_Refine(*size, code_size) for size in sizes)
        self.face = nn.Conv2d(12, 48, 3, padding=1) if sees_face else None

    def signal(self, codes: Tensor, noise: list[Tensor], faces: Tensor | None = None) -> Tensor:
        """Local features, ``N x 1 x 112 x 112``, logits."""
        n7, n14, n28 = noise

        def up(x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")

        def refine(scale: int, x: Tensor) -> Tensor:
            return self.branches[scale](x, codes) if self.refine else x

        x = self.code(codes).view(-1, 96, 7, 7).contiguous(memory_format=torch.channels_last)
        x = refine(0, F.silu(self.c7(torch.cat([x, n7.to(x.dtype)], 1))))
        x = refine(1, F.silu(self.c14(torch.cat([up(x), n14.to(x.dtype)], 1))))
        x = F.silu(self.c28(torch.cat([up(x), n28.to(x.dtype)], 1)))
        x = refine(2, F.silu(self.c28b(x)) + x)
        x = self.c56(up(x))
        if self.face is not None and faces is not None:
            x = x + self.face(F.pixel_unshuffle(faces - lowpass(faces, 2.0), 2))
        x = F.silu(x)
        x = refine(3, F.silu(self.c56b(x)) + x)
        return F.pixel_shuffle(self.out(x).float(), 2)

    def forward(
        self,
        codes: Tensor,
        draws: Tensor,
        field: float = 1.0,
        warp: float = 1.0,
        pose: float = 1.0,
        faces: Tensor | None = None,
    ) -> Tensor:
        """Codes and draws to pictures.

        Args:
            codes: ``N x code_size``.
            draws: ``N x DrawLayout.SIZE``, standard normal.
            field, warp, pose: factors on the scales that the generator was built with.
            faces: ``N x 3 x 112 x 112`` in 0..1, used where the generator ``sees_face``.

        Returns:
            ``N x 3 x 112 x 112`` in 0..1.
        """
        return self.veil(self.features(codes, draws, faces), draws, field, warp, pose)

    def features(self, codes: Tensor, draws: Tensor, faces: Tensor | None = None) -> Tensor:
        """The signal in its band and bounds, ``N x 1 x 112 x 112``, logits."""
        signal = lowpass(self.signal(codes, DrawLayout.split(draws)[3], faces), self.FINE)
        if self.sigma:
            signal = signal - lowpass(signal, self.sigma)
        return self.LIMIT * torch.tanh(signal / self.LIMIT)

    def veil(
        self,
        signal: Tensor,
        draws: Tensor,
        field: float = 1.0,
        warp: float = 1.0,
        pose: float = 1.0,
    ) -> Tensor:
        """Features, moved and under a field as the draw says; ``N x 3 x 112 x 112`` in 0..1."""
        glow, bend, place, _ = DrawLayout.split(draws)
        if self.mirror:
            signal = torch.where((place[:, 4] > 0).view(-1, 1, 1, 1), signal.flip(3), signal)
        warp, pose, field = warp * self.warp, pose * self.pose, field * self.field
        if warp or pose:
            grid = _warp_grid(bend * warp, place * pose)
            signal = F.grid_sample(signal, grid, padding_mode="reflection", align_corners=False)
        signal = signal.expand(-1, 3, -1, -1)
        if field:
            grey = glow.mean(1, keepdim=True) * 3**0.5  # as strong as one channel
            glow = (1 - self.colour**2) ** 0.5 * grey + self.colour * glow
            signal = signal + field * _enlarged(glow)
        return torch.sigmoid(signal)


def lowpass(images: Tensor, sigma: float) -> Tensor:
    """Gaussian low-pass of ``N x C x H x W``, reflected at the border; sigma in px."""
    radius = int(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    # One dense matrix a side: at 112 px faster than a wide depthwise convolution, and exact.
    eye = torch.eye(images.shape[-1], dtype=images.dtype, device=images.device)
    padded = F.pad(eye, (radius, radius), mode="reflect")
    matrix = F.conv1d(padded[:, None], kernel.view(1, 1, -1))[:, 0]
    return torch.einsum("hi,nchw,wj->ncij", matrix, images, matrix)


def _enlarged(planes: Tensor) -> Tensor:
    """``N x C x n x n`` to the size of a face, bicubic: what ``F.interpolate`` gives, to 1e-6, in a
    fortieth of the time on a CPU."""
    matrix = _bicubic(planes.shape[-1]).to(planes)
    with torch.autocast(planes.device.type, enabled=False):
        return matrix @ planes @ matrix.T


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # a cached tensor must serve training too
def _bicubic(length: int) -> Tensor:
    """``FACE_SIZE x length``."""
    rows = torch.eye(length)[None, :, :, None]
    size = (FACE_SIZE, 1)
    return F.interpolate(rows, size, mode="bicubic", align_corners=False)[0, :, :, 0].T.contiguous()


def similarities(angle: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Similarity transforms, ``N x 2 x 3``, by angles (radians), factors, and shifts, ``N x 2``."""
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = (torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1))
    return torch.stack(rows, 1)


def _warp_grid(warp: Tensor, pose: Tensor) -> Tensor:
    """Sampling grid ``N x 112 x 112 x 2`` of a smooth displacement (px) and a pose.

    pose: shift x, shift y (times 2.5 px), rotation (times 4 degrees), zoom (times 4 %); what
    follows is not looked at.
    """
    shift = pose[:, :2] * 2.5 * 2 / FACE_SIZE
    angle = pose[:, 2] * math.radians(4)
    zoom = torch.exp(pose[:, 3] * 0.04)
    size = [len(pose), 1, FACE_SIZE, FACE_SIZE]
    grid = F.affine_grid(similarities(angle, zoom, shift), size, align_corners=False)
    return grid + _enlarged(warp).permute(0, 2, 3, 1) * (2 / FACE_SIZE)
