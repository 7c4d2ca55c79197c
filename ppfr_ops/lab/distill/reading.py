"""What a head reads of a public recogniser: its template, and what its last layer reads.

In its last layer a recogniser throws away what it was not taught to tell people apart by; another
recogniser may look at some of that. The input of the last layer with weights is found in the
TorchScript graph and given out beside the template, averaged over places.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ppfr_ops import torchscript
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces, in_chunks
from ppfr_ops.recognizers import Embeddings, Recognizer, RecognizerSpec

_LAYERS = ("linear", "addmm", "matmul", "mm", "_convolution", "conv2d", "convolution")
_SHAPES = ("flatten", "reshape", "view", "permute", "squeeze", "contiguous")


class Opened(nn.Module):
    """A recogniser: ``N x 3 x 112 x 112``, 0..255, in; its template, unit length, ``N x D``, and
    what its last layer reads, ``N x I``, out. I is 0 where no layer can be told apart.

    ``sizes``: D and I.

    Raises:
        UserError: the file is no TorchScript.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.network = opened(path, "a public recogniser")
        self.both = _with_inside(self.network)
        if self.both is not None:
            del self.network  # all of it is in the function
        with torch.inference_mode():
            template, inside = self(torch.full((2, 3, 112, 112), 127.0))
        self.sizes = (template.shape[1], inside.shape[1])

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        if self.both is None:
            template = self.network(faces)
            inside = template[:, :0]
        else:
            template, inside = self.both(faces)
        if inside.dim() == 4:
            inside = inside.mean((2, 3))
        return template / template.norm(dim=1, keepdim=True), inside.flatten(1)


def _with_inside(network: torch.jit.ScriptModule) -> torch.jit.ScriptFunction | None:
    """The network as a function that gives both, or None."""
    graph = torchscript.frozen(network).graph.copy()
    torch._C._jit_pass_inline(graph)
    layers = [node for node in graph.nodes() if node.kind().removeprefix("aten::") in _LAYERS]
    itself, *_ = graph.inputs()
    if not layers or itself.uses():
        return None
    value = list(layers[-1].inputs())[1 if layers[-1].kind() == "aten::addmm" else 0]
    while value.node().kind().removeprefix("aten::") in _SHAPES:
        value = next(iter(value.node().inputs()))
    (template,) = graph.outputs()
    both = graph.create("prim::TupleConstruct", [template, value], 1)
    both.output().setType(torch._C.TupleType([template.type(), value.type()]))
    graph.appendNode(both)
    graph.eraseOutput(0)
    graph.registerOutput(both.output())
    graph.eraseInput(0)  # the module; what it held are constants by now
    return torch._C._create_function_from_graph("opened", graph)


class Reader:
    """What a head reads, of many faces: to a cache it looks like a recogniser.

    An ONNX file gives templates only.
    """

    def __init__(self, spec: RecognizerSpec, threads: int = 0) -> None:
        self.spec, self.name = spec, spec.name
        self._plain: Recognizer | None = None
        if Path(spec.path).suffix == ".onnx":
            self._plain = Recognizer(spec, threads)
            grey = np.full((1, 112, 112, 3), 127, np.uint8)
            self.sizes = (self._plain.embed(grey).shape[1], 0)
        else:
            self._network = Opened(spec.path)
            self.sizes = self._network.sizes
            if threads:
                torch.set_num_threads(threads)

    @property
    def opened(self) -> Opened:
        """The network.

        Raises:
            UserError: it is an ONNX file.
        """
        if self._plain is not None:
            raise UserError("a public recogniser is not readable TorchScript (.pt)")
        return self._network

    def embed(self, faces: Faces, batch_size: int = 32) -> Embeddings:
        """float32 ``N x (D + I)``: templates, and what the last layer reads of them."""
        if self._plain is not None:
            return self._plain.embed(faces, batch_size)
        if not len(faces):
            return np.zeros((0, sum(self.sizes)), np.float32)
        with torch.inference_mode():
            return in_chunks(
                lambda part: torch.cat(self._network(pixels(part)), 1), faces, size=batch_size
            )


def pixels(faces: Faces) -> Tensor:
    """uint8 ``N x 112 x 112 x 3`` to float ``N x 3 x 112 x 112``, 0..255: our interface."""
    return torch.from_numpy(faces.transpose(0, 3, 1, 2).copy()).float()


def opened(path: str | Path, what: str) -> torch.jit.ScriptModule:
    """A recogniser's network.

    Raises:
        UserError: ``what`` is no TorchScript file.
    """
    try:
        return torchscript.load(path).eval()
    except (RuntimeError, ValueError):
        raise UserError(f"{what} is not readable TorchScript (.pt)") from None
