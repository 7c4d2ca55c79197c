"""A distillation from beginning to end."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ppfr_ops.contracts.surrogate import Fit, SurrogateCard
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.distill import collecting, heads, students
from ppfr_ops.lab.distill.cleaning import Cleaner, cleaning_loss
from ppfr_ops.lab.distill.denoising import Denoised, Enrolment, map_behind, wiener
from ppfr_ops.lab.distill.reading import Reader
from ppfr_ops.lab.distill.saving import PublicEnsemble, save, save_enrolment
from ppfr_ops.lab.distill.scoring import of_scores
from ppfr_ops.lab.queries.asking import QueryClient
from ppfr_ops.recognizers import Embeddings, Recognizer, RecognizerSpec

LEAST = 50
"""Answers of which a surrogate is made, at least."""
CHECKPOINT = "student.checkpoint.pt"
DENOISER = "denoiser"
"""Instead of a student: a learned denoiser in front of a recogniser that is here."""
_KINDS = {None: "denoised", DENOISER: "denoised by a network"}


@dataclass(frozen=True)
class Wanted:
    """What surrogate to make.

    ``student``: None for the head itself; ``small``, ``medium`` or a TorchScript file to go on
    with; ``denoiser``: see :func:`of_teacher`. ``noise`` and ``seconds`` are the student's.
    """

    target: str
    access: Literal["template", "score"]
    student: str | None = None
    noise: float = 0.0
    seconds: float = 600.0
    workers: int = 1


def distil(
    asker: QueryClient,
    faces: Faces,
    public: list[RecognizerSpec],
    wanted: Wanted,
    folder: Path,
    log: Callable[[str], None],
) -> SurrogateCard:
    """Ask a recogniser within a budget, and make a surrogate of the answers.

    Args:
        asker: with its account.
        faces: uint8 ``N x 112 x 112 x 3``; more than are asked serve to teach a student.
        public: recognisers of one's own, TorchScript.
        folder: gets ``surrogate.ts.pt``, ``surrogate.onnx`` and ``card.json``.

    Raises:
        UserError: an endpoint's fault, too few answers.
    """
    faces = collecting.in_order(faces)
    readers = [Reader(spec, torch.get_num_threads()) for spec in public]
    features = _features(readers, faces, asker.account.budget, wanted)
    before = asker.answers.count()
    if wanted.access == "template":
        places, answers = collecting.templates(asker, faces[: asker.account.budget], wanted.workers)
        _enough(len(places))
        log(f"{len(places):,} templates; {asker.account.spent:,} queries in the account")
        head, fit = heads.of_templates(features.keep(places), answers)
        made_of = len(places)
    else:
        pairs = collecting.pairs_to_ask(
            np.concatenate(features.parts, axis=1), asker.account.budget
        )
        scored = collecting.scores(asker, faces, pairs, wanted.workers)
        _enough(len(scored.a))
        log(f"{len(scored.a):,} scores; {asker.account.spent:,} queries in the account")
        head, fit = of_scores(features, scored)
        made_of = len(scored.a)
    log(f"head: Spearman {fit.spearman:.3f} on pairs held back; without a query {fit.baseline:.3f}")
    network: torch.nn.Module = PublicEnsemble([reader.opened for reader in readers], head)
    if wanted.student is not None:
        network = _student(_targets(network, faces), faces, wanted, folder, log)
        fit = Fit(pairs=0, spearman=None, baseline=fit.baseline)
    account = asker.account
    account.refresh()
    card = SurrogateCard(
        target=wanted.target,
        void_as_black_box=True,
        access=wanted.access,
        kind=_kind(wanted.student),
        public=[spec.name for spec in public],
        noise=wanted.noise,
        budget=account.budget,
        queries=account.spent,
        failures=dict(account.failures),
        answers=made_of,
        reused=min(before, asker.reused),
        account_head=account.head,
        account_lines=account.lines,
        dimensions=_dimensions(network),
        fit=fit,
    )
    return save(network, card, folder)


def of_teacher(
    teacher: RecognizerSpec, faces: Faces, wanted: Wanted, folder: Path, log: Callable[[str], None]
) -> SurrogateCard:
    """A student of a recogniser that is here, or that recogniser behind a denoiser (a linear one,
    or with ``student`` ``denoiser`` a learned one): no query, no account, no black box.

    Raises:
        UserError: the teacher cannot be read.
    """
    faces = collecting.in_order(faces)
    target = Recognizer(teacher, torch.get_num_threads()).embed(faces)
    network: torch.nn.Module
    if wanted.student in (None, DENOISER):
        network = _denoised(teacher, faces, target, wanted, folder, log)
    else:
        network = _student(target, faces, wanted, folder, log)
    card = SurrogateCard(
        target=wanted.target,
        void_as_black_box=False,
        notice="A student of a recogniser that was at hand; what holds of that holds of this.",
        access="local",
        kind=_KINDS.get(wanted.student) or _kind(wanted.student),
        public=[],
        noise=wanted.noise,
        budget=0,
        queries=0,
        failures={},
        answers=len(faces),
        reused=0,
        account_head=None,
        account_lines=0,
        dimensions=target.shape[1],
        fit=Fit(pairs=0, spearman=None, baseline=None),
    )
    return save(network, card, folder)


def _features(readers: list[Reader], faces: Faces, budget: int, wanted: Wanted) -> heads.Features:
    count = budget if wanted.access == "template" else max(2, budget // collecting.PARTNERS)
    sizes = [reader.sizes for reader in readers]
    return heads.Features.of([reader.embed(faces[:count]) for reader in readers], sizes)


def _targets(network: torch.nn.Module, faces: Faces) -> Embeddings:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(faces), 32):
            batch = torch.from_numpy(faces[start : start + 32].transpose(0, 3, 1, 2).copy())
            parts.append(np.asarray(network(batch.float())))
    return np.concatenate(parts)


def _student(
    target: Embeddings, faces: Faces, wanted: Wanted, folder: Path, log: Callable[[str], None]
) -> torch.nn.Module:
    student = students.build(wanted.student or "small", target.shape[1])
    checkpoint = folder / CHECKPOINT
    students.train(student, faces, target, wanted.noise, wanted.seconds, checkpoint, log)
    return student


def _denoised(
    teacher: RecognizerSpec,
    faces: Faces,
    target: Embeddings,
    wanted: Wanted,
    folder: Path,
    log: Callable[[str], None],
) -> Denoised:
    filter_ = wiener(faces, wanted.noise)
    log(f"denoiser: {filter_.gains.numel()} components of {len(faces):,} faces")
    if wanted.student is None:
        network = Denoised(teacher.path, filter_, target.shape[1])
    else:
        cleaner = Cleaner(filter_)
        network = Denoised(teacher.path, cleaner, target.shape[1])
        checkpoint, loss = folder / CHECKPOINT, partial(cleaning_loss, cleaner, network.network)
        students.train(
            network,
            faces,
            target,
            wanted.noise,
            wanted.seconds,
            checkpoint,
            log,
            batch=16,
            rate=2e-3,
            loss_of=loss,
        )
    map_behind(network, faces, target, wanted.noise, log)
    save_enrolment(Enrolment(network, target), folder)
    return network.eval()


def _enough(count: int) -> None:
    if count < LEAST:
        raise UserError(f"only {count} answers, needed: {LEAST}; they are kept, raise the budget")


def _kind(student: str | None) -> str:
    return "head" if student is None else student if student in students.SIZES else "fine-tuned"


def _dimensions(network: torch.nn.Module) -> int:
    with torch.inference_mode():
        return int(network(torch.full((1, 3, 112, 112), 127.0)).shape[1])
