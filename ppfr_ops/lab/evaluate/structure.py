"""The structure attack on a release: who can be named by what the set tells."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ppfr_ops.contracts.structure import Structure, StructureAttack
from ppfr_ops.lab.evaluate.attacks.structure import ATTACKS, Claims, Seen, Source, dealt
from ppfr_ops.lab.evaluate.attacks.structure_faces import by_cosines, clusters
from ppfr_ops.lab.evaluate.released import (
    Released,
    faces_in,
    read_release_folder,
    read_source,
    read_truth,
)
from ppfr_ops.release.singled import singled
from ppfr_ops.sanitize.grouping import features_of

Log = Callable[[str], None]


@dataclass(frozen=True)
class Attacked:
    """A release, what it was made of, and who is who."""

    release: str
    """Folder of the output or of its ``release``."""
    source: str
    """Parquet file or folder, with labels; read for labels and kept columns, and for faces if
    ``pictures``."""
    mapping: str | None = None
    """The owner's, to say how many are named rightly."""
    identity_column: str = "identity"
    pictures: bool = False
    """Look at templates of the published pictures, too; takes minutes."""


def structure_attack(attacked: Attacked, log: Log = lambda line: None) -> Structure:
    """Name people from a release.

    Raises:
        UserError: something cannot be read.
    """
    found = read_release_folder(attacked.release)
    known = read_source(attacked.source, attacked.identity_column, found)
    attacks = dict(ATTACKS)
    if attacked.pictures:
        log("  templates of originals and published pictures")
        originals = features_of(faces_in(known.files))[0]
        published = features_of(faces_in(found.files))
        if not found.named:
            groups = clusters(published, known.source.people)
            found = replace(found, seen=replace(found.seen, pseudonyms=groups))
        attacks["cosines among a person's pictures"] = lambda source, shown: by_cosines(
            source, shown, originals, published[0]
        )
    truth = None if attacked.mapping is None else read_truth(attacked.mapping, found, known)
    seen = found.seen
    control = dealt(seen)
    rows = []
    for name, attack in attacks.items():
        rows.append(judged(name, attack, known.source, seen, control, truth))
        log(f"  {in_words(rows[-1], known.source.count)}")
    alone = singled(_records(found))
    return Structure(
        release=None if found.manifest is None else found.manifest.release,
        people=known.source.count,
        pseudonyms=seen.count,
        records=len(seen.ids),
        shards=int(seen.shards.max()) + 1,
        pictures=attacked.pictures,
        singled_out=alone.singled_out,
        structure_k=alone.structure_k,
        attacks=sorted(rows, key=lambda row: -(row.right or 0)),
    )


def judged(
    name: str,
    attack: Callable[[Source, Seen], Claims],
    source: Source,
    seen: Seen,
    control: Seen,
    truth: dict[int, int] | None,
) -> StructureAttack:
    """One attack, and its control beside it."""

    def right(claims: Claims) -> int | None:
        if truth is None:
            return None
        return sum(truth.get(pseudonym) == person for pseudonym, person in claims.items())

    claims, others = attack(source, seen), attack(source, control)
    return StructureAttack(
        attack=name,
        named=len(claims),
        right=right(claims),
        chance=len(claims) / max(source.count, 1),
        control_named=len(others),
        control_right=right(others),
    )


def in_words(found: StructureAttack, people: int) -> str:
    """A line for a terminal."""

    def told(named: int, right: int | None) -> str:
        return f"{named:,} named" + ("" if right is None else f", {right:,} rightly")

    return (
        f"{found.attack}: of {people:,} people {told(found.named, found.right)} "
        f"(control: {told(found.control_named, found.control_right)})"
    )


def _records(found: Released) -> pa.Table:
    texts = np.array(list(map(repr, found.seen.kept)))
    return pa.table({"identity": found.seen.pseudonyms.astype(str), "kept": texts})
