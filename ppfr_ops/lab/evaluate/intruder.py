"""A motivated intruder: somebody with a release as a recipient has it, photos of people with their
names, and the means that anybody can get (ICO's test)."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ppfr_ops.contracts.intruder import Attempt, IntruderRecord
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding, ImageError
from ppfr_ops.lab.evaluate.data import FaceSet, read_faces
from ppfr_ops.lab.evaluate.released import Released, read_release_folder, read_source, read_truth
from ppfr_ops.lab.evaluate.structure import Attacked, structure_attack
from ppfr_ops.recognizers import Recognizer

Log = Callable[[str], None]
_BATCH = 64


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
    attempts = [
        Attempt(means=f"structure, {row.attack}", named=row.named, right=row.right,
                chance=row.chance)
        for row in told.attacks
    ]  # fmt: skip
    if recognizers:
        published = _pictures(found)
        for model in recognizers:
            names = by_recogniser(model, published, found, gallery, known.source.people)
            attempts.append(_judged(f"FR model {model.name}", names, known.source.count, truth))
            log(f"  {attempts[-1].means}: {attempts[-1].named:,} named")
    left_out = ["what can be told of sex, age and origin: ppfr evaluate, stage inference"]
    left_out.append("a line-up, which a person looks at: ppfr lineup")
    if not recognizers:
        left_out.append("FR models on the pictures: none was given")
    return IntruderRecord(
        release=found.manifest.release,
        version=found.manifest.version,
        date=datetime.now(UTC).date().isoformat(),
        candidates=len(gallery),
        people=known.source.count,
        models=[model.name for model in recognizers],
        attempts=attempts,
        not_tried=left_out,
    )


def _judged(
    means: str, names: dict[int, int], people: int, truth: dict[int, int] | None
) -> Attempt:
    right = None
    if truth is not None:
        right = sum(truth.get(pseudonym) == person for pseudonym, person in names.items())
    return Attempt(means=means, named=len(names), right=right, chance=len(names) / max(people, 1))


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
    theirs = _means(_templates(model, published), np.asarray(found.seen.pseudonyms))
    named = _means(_templates(model, gallery.images), np.asarray(people))
    scores = theirs @ named.T
    best, back = scores.argmax(1), scores.argmax(0)
    return {int(n): int(person) for n, person in enumerate(best) if back[person] == n}


def _templates(model: Recognizer, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    parts = [model.embed(faces[start : start + _BATCH]) for start in range(0, len(faces), _BATCH)]
    templates = np.concatenate(parts)
    # Not all models are centred; an intruder would see to it.
    return np.asarray(templates - templates.mean(0), np.float32)


def _means(templates: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.float32]:
    sums = np.zeros((int(groups.max()) + 1, templates.shape[1]), np.float32)
    np.add.at(sums, groups, templates)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return sums / np.maximum(lengths, 1e-9)


def _pictures(found: Released) -> NDArray[np.uint8]:
    faces = []
    for file in found.files:
        for cell in pq.read_table(file, columns=["image"])["image"].to_pylist():
            try:
                face = Encoding.decode(cell["bytes"])
            except (ValueError, ImageError):
                raise UserError("a published picture cannot be decoded; see ppfr verify") from None
            if face.shape != (112, 112, 3):
                raise UserError("the intruder needs aligned faces, not whole photographs")
            faces.append(face)
    return np.stack(faces)
