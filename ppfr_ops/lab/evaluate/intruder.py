"""A motivated intruder: somebody with a release as a recipient has it, photos of people with their
names, and the means that anybody can get (ICO's test)."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.intruder import Attempt, IntruderRecord
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import unit
from ppfr_ops.lab.evaluate.attacks.structure_pictures import means
from ppfr_ops.lab.evaluate.data import FaceSet, read_faces
from ppfr_ops.lab.evaluate.released import (
    Released,
    faces_in,
    read_release_folder,
    read_source,
    read_truth,
)
from ppfr_ops.lab.evaluate.structure import Attacked, right, structure_attack
from ppfr_ops.recognizers import Recognizer

Log = Callable[[str], None]


def intrude(
    release: str,
    candidates: str,
    recognizers: Sequence[Recognizer],
    mapping: str | None = None,
    identity_column: str = "identity",
    log: Log = lambda line: None,
) -> IntruderRecord:
    """Try to name people.

    Args:
        release: folder of an output or of its release; aligned faces.
        candidates: photos of people with names, aligned, Parquet; the input itself is the most that
            an intruder can have.
        recognizers: FR models that the intruder has.
        mapping: the owner's, to count the right names; of ``candidates``.
        identity_column: of the names.

    Raises:
        UserError: something cannot be read.
    """
    found = read_release_folder(release)
    if found.manifest is None:
        raise UserError("no manifest.json: not a release")
    known = read_source(candidates, identity_column, found)
    truth = None if mapping is None else read_truth(mapping, found, known, lambda line: None)
    gallery = read_faces(candidates, "candidates")
    if len(gallery) != len(known.source.people):
        raise UserError("candidates: some cannot be decoded as faces of 112 x 112")
    told = structure_attack(Attacked(release, candidates, mapping, identity_column), log)
    tried = [(f"structure, {row.attack}", row.named, row.right, row.chance) for row in told.attacks]
    if recognizers:
        published = faces_in(found.files, "the release")
        for model in recognizers:
            names = by_recogniser(model, published, found, gallery, known.source.people)
            chance = len(names) / max(known.source.count, 1)
            tried.append((f"FR model {model.name}", len(names), right(names, truth), chance))
            log(f"  {tried[-1][0]}: {len(names):,} named")
    left_out = [
        "what can be told of sex, age and origin: ppfr evaluate, stage inference",
        "a line-up, which a person looks at: ppfr lineup",
    ]
    if not recognizers:
        left_out.append("FR models on the pictures: none was given")
    return IntruderRecord(
        release=found.manifest.release,
        version=found.manifest.version,
        date=datetime.now(UTC).date().isoformat(),
        candidates=len(gallery),
        people=known.source.count,
        models=[model.name for model in recognizers],
        attempts=[
            Attempt(means=by, named=named, right=rightly, chance=chance)
            for by, named, rightly, chance in tried
        ],
        not_tried=left_out,
    )


def by_recogniser(
    model: Recognizer,
    published: NDArray[np.uint8],
    found: Released,
    gallery: FaceSet,
    people: NDArray[np.int64],
) -> dict[int, int]:
    """Names by an FR model: a pseudonym and a person are put together if each is the most alike
    that the other has, by the mean templates of their pictures.

    Args:
        published: uint8 ``N x 112 x 112 x 3``, in the order of ``found.seen``.
        people: number of the person of every photo in the gallery.

    Returns:
        Person by pseudonym, by number.
    """
    theirs = _unit_means(model.embed(published), np.asarray(found.seen.pseudonyms))
    named = _unit_means(model.embed(gallery.images), np.asarray(people))
    scores = theirs @ named.T
    best, back = scores.argmax(1), scores.argmax(0)
    return {int(n): int(person) for n, person in enumerate(best) if back[person] == n}


def _unit_means(templates: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Not all models are centred; an intruder would see to it."""
    return unit(means(templates - templates.mean(0), groups))
