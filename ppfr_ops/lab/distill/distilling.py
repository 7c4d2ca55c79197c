"""A distillation from beginning to end."""

from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ppfr_ops.contracts.surrogate import Fit, SurrogateCard
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces, in_chunks
from ppfr_ops.lab.distill import collecting, heads, students
from ppfr_ops.lab.distill.denoising import (
    Cleaner,
    Denoised,
    Enrolment,
    cleaning_loss,
    map_behind,
    wiener,
)
from ppfr_ops.lab.distill.reading import Reader, pixels
from ppfr_ops.lab.distill.saving import PublicEnsemble, save, save_enrolment
from ppfr_ops.lab.distill.scoring import of_scores
from ppfr_ops.lab.queries.asking import QueryClient
from ppfr_ops.recognizers import Embeddings, Recognizer, RecognizerSpec

LEAST = 50
"""Answers of which a surrogate is made, at least."""
CHECKPOINT = "student.checkpoint.pt"
DENOISER = "denoiser"
"""Instead of a student: a learned denoiser in front of a recogniser that is here."""


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
    budget = asker.account.budget
    count = budget if wanted.access == "template" else max(2, budget // collecting.PARTNERS)
    read = [reader.embed(faces[:count]) for reader in readers]
    features = heads.Features.of(read, [reader.sizes for reader in readers])
    before = asker.answers.count()
    if wanted.access == "template":
        places, answers = collecting.templates(asker, faces[:budget], wanted.workers)
        _enough(places, "templates", asker, log)
        head, fit = heads.of_templates(features.keep(places), answers)
    else:
        pairs = collecting.pairs_to_ask(np.concatenate(features.parts, axis=1), budget)
        scored = collecting.scores(asker, faces, pairs, wanted.workers)
        places = scored.a
        _enough(places, "scores", asker, log)
        head, fit = of_scores(features, scored)
    log(f"head: Spearman {fit.spearman:.3f} on pairs held back; without a query {fit.baseline:.3f}")
    network: torch.nn.Module
    network = ensemble = PublicEnsemble([reader.opened for reader in readers], head)
    if wanted.student is not None:
        with torch.inference_mode():
            target = in_chunks(lambda part: ensemble(pixels(part)), faces, size=32)
        network = _student(target, faces, wanted, folder, log)
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
        answers=len(places),
        reused=min(before, asker.reused),
        account_head=account.head,
        account_lines=account.lines,
        dimensions=head.linear.out_features,
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
    if wanted.student in (None, DENOISER):
        network = _denoised(teacher, faces, target, wanted, folder, log)
    else:
        network = _student(target, faces, wanted, folder, log)
    card = SurrogateCard(
        target=wanted.target,
        void_as_black_box=False,
        notice="A student of a recogniser that was at hand; what holds of that holds of this.",
        access="local",
        kind=_kind(wanted.student, local=True),
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


def _student(
    target: Embeddings, faces: Faces, wanted: Wanted, folder: Path, log: Callable[[str], None]
) -> torch.nn.Module:
    student = students.build(wanted.student or "small", target.shape[1])
    taught = (student, faces, target, wanted.noise, wanted.seconds, folder / CHECKPOINT, log)
    students.train(*taught)
    return student


def _denoised(
    teacher: RecognizerSpec,
    faces: Faces,
    target: Embeddings,
    wanted: Wanted,
    folder: Path,
    log: Callable[[str], None],
) -> torch.nn.Module:
    filter_ = wiener(faces, wanted.noise)
    log(f"denoiser: {filter_.gains.numel()} components of {len(faces):,} faces")
    cleaner = None if wanted.student is None else Cleaner(filter_)
    network = Denoised(teacher.path, cleaner or filter_, target.shape[1])
    if cleaner is not None:
        taught = (network, faces, target, wanted.noise, wanted.seconds, folder / CHECKPOINT, log)
        loss = partial(cleaning_loss, cleaner, network.network)
        students.train(*taught, batch=16, rate=2e-3, loss_of=loss)
    map_behind(network, faces, target, wanted.noise, log)
    save_enrolment(Enrolment(network, target), folder)
    return network.eval()


def _enough(answers: Sized, what: str, asker: QueryClient, log: Callable[[str], None]) -> None:
    count = len(answers)
    if count < LEAST:
        raise UserError(f"only {count} answers, needed: {LEAST}; they are kept, raise the budget")
    log(f"{count:,} {what}; {asker.account.spent:,} queries in the account")


def _kind(student: str | None, local: bool = False) -> str:
    if student is None:
        return "denoised" if local else "head"
    if student == DENOISER:
        return "denoised by a network"
    return student if student in students.SIZES else "fine-tuned"
