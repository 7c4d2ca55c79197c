"""A surrogate as files: TorchScript and ONNX of our interface, its card inside both and beside."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ppfr_ops import torchscript
from ppfr_ops.contracts.surrogate import SurrogateCard
from ppfr_ops.errors import UserError
from ppfr_ops.lab.distill.heads import Head
from ppfr_ops.lab.distill.reading import Opened
from ppfr_ops.recognizers import MARK

SCRIPT, ONNX, CARD = "surrogate.ts.pt", "surrogate.onnx", "card.json"
ENROLMENT = "enrolment.ts.pt"
"""Beside a denoised recogniser: what clean pictures are enrolled by, to be held against it."""
INPUT, OUTPUT = "face_rgb_0_255", "embedding"


class PublicEnsemble(nn.Module):
    """Public recognisers and a head on their templates, as one network."""

    def __init__(self, public: list[Opened], head: Head) -> None:
        super().__init__()
        self.public = nn.ModuleList(public)
        self.head = head

    def forward(self, faces: Tensor) -> Tensor:
        templates, inside = [], []
        for network in self.public:
            template, more = network(faces)
            templates.append(template)
            if more.shape[1]:
                inside.append(more)
        return self.head(torch.cat([*templates, *inside], 1))


def save(network: nn.Module, card: SurrogateCard, folder: Path) -> SurrogateCard:
    """Write the files; both are run and compared before the card is written.

    Returns:
        The card, with the digests of the files.

    Raises:
        ModuleNotFoundError: the package ``onnx`` is missing.
        UserError: the two files do not agree.
    """
    import onnx

    network = network.eval().requires_grad_(False)
    example = torch.randint(0, 256, (2, 3, 112, 112)).float()
    inside = card.model_dump_json(exclude={"sha256"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.inference_mode():
            traced = torch.jit.trace(network, example, check_trace=False)
        for part in traced.modules():
            if isinstance(part, torch.jit.ScriptModule) and "forward" in part._c._method_names():
                torch._C._jit_pass_inline(part.graph)  # a file cannot call functions without a name
        traced.save(str(folder / SCRIPT), _extra_files={MARK: inside})
        axes = {INPUT: {0: "N"}, OUTPUT: {0: "N"}}
        torch.onnx.export(
            traced,
            (example,),
            str(folder / ONNX),
            dynamo=False,  # the other exporter takes no TorchScript
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=axes,
        )
    document = onnx.load(folder / ONNX)
    onnx.helper.set_model_props(document, {MARK: inside})
    onnx.save(document, folder / ONNX)
    _agree(folder)
    files = ((name, (folder / name).read_bytes()) for name in (SCRIPT, ONNX))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files}
    card = card.model_copy(update={"sha256": digests})
    (folder / CARD).write_text(card.model_dump_json(indent=1) + "\n", "utf-8")
    return card


def save_enrolment(network: nn.Module, folder: Path) -> None:
    """The network that clean pictures are enrolled by, TorchScript."""
    example = torch.randint(0, 256, (2, 3, 112, 112)).float()
    with torchscript.quiet(), torch.inference_mode():
        torch.jit.trace(network.eval(), example, check_trace=False).save(str(folder / ENROLMENT))


def _agree(folder: Path) -> None:
    """Raises UserError: the files give different templates of a batch of another size."""
    from ppfr_ops import sample
    from ppfr_ops.recognizers import Recognizer, RecognizerSpec

    faces = sample.faces(3, seed=0)
    a, b = (
        Recognizer(RecognizerSpec("surrogate", str(folder / name)), 1).embed(faces)
        for name in (SCRIPT, ONNX)
    )
    if np.abs(a - b).max() > 1e-3:
        raise UserError("the surrogate's TorchScript and ONNX do not agree")
