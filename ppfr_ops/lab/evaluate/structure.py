"""The structure attack on a release: who can be named by what the set tells."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ppfr_ops.contracts.structure import Structure, StructureAttack
from ppfr_ops.lab.evaluate.attacks.structure import (
    ATTACKS,
    Claims,
    Seen,
    Source,
    dealt,
    within_sizes,
)
from ppfr_ops.lab.evaluate.attacks.structure_pictures import (
    by_cosines,
    by_hints,
    by_map,
    clusters,
    drawn,
    known_pairs,
    reader,
)
from ppfr_ops.lab.evaluate.released import (
    Known,
    Released,
    faces_in,
    joined,
    read_release_folder,
    read_source,
    read_truth,
)
from ppfr_ops.methods.registry import create
from ppfr_ops.release.singled import singled
from ppfr_ops.sanitize.grouping import features_of

Log = Callable[[str], None]
Attack = Callable[[Source, Seen], Claims]

_KNOWN_PAIRS = (0, 16, 128, 512, 2048)
_DRAWN = {"stochastic-local": 2000, "natural": 400}
"""Pictures that the attacker draws with the public generator to learn to read its codes."""


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
    earlier: tuple[tuple[str, str], ...] = ()
    """Earlier versions of the release, oldest first, and what each was made of."""


def structure_attack(attacked: Attacked, log: Log = lambda line: None) -> Structure:
    """Name people from a release.

    Raises:
        UserError: something cannot be read.
    """
    found, known = _read(attacked)
    attacks: dict[str, Attack] = {**ATTACKS, "all of these, a guess at everybody": by_hints}
    told = attacked.mapping
    truth = None if told is None else read_truth(told, found, known, log)
    if attacked.pictures:
        found, more = _with_pictures(found, known, truth, log)
        attacks |= more
    seen = found.seen
    control = dealt(seen)
    rows = []
    for name, attack in attacks.items():
        pairs = attack.keywords.get("known", {}) if isinstance(attack, partial) else {}
        unknown = None if truth is None else {n: p for n, p in truth.items() if n not in pairs}
        rows.append(judged(name, attack, known.source, seen, control, unknown))
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


def _read(attacked: Attacked) -> tuple[Released, Known]:
    """The release and its source; with all earlier versions beside them, if there are any."""
    versions = []
    for release, source in (*attacked.earlier, (attacked.release, attacked.source)):
        found = read_release_folder(release)
        versions.append((found, read_source(source, attacked.identity_column, found)))
    return versions[0] if len(versions) == 1 else joined(versions)


def _with_pictures(
    found: Released, known: Known, truth: Claims | None, log: Log
) -> tuple[Released, dict[str, Attack]]:
    """The attacks that look at pictures; and the release, in which clusters of pictures take the
    place of pseudonyms if it has none."""
    log("  templates of originals and published pictures")
    originals = features_of(faces_in(known.files))
    published = features_of(faces_in(found.files))
    if not found.named:
        groups = clusters(published, known.source.people)
        found = replace(found, seen=replace(found.seen, pseudonyms=groups))
    faces, pictures = np.concatenate(originals, 1), np.concatenate(published, 1)
    views = {"templates": pictures}
    codes = _codes(found, pictures, log)
    if codes is not None:
        views["the generator's codes"] = codes
    attacks: dict[str, Attack] = {
        "cosines among a person's pictures": partial(
            by_cosines, originals=originals[0], published=published[0]
        )
    }
    for what, view in views.items():
        for count in _KNOWN_PAIRS:
            pairs = known_pairs(truth or {}, count) if found.named else {}
            if len(pairs) == count <= found.seen.count // 2:
                attacks[f"a map to {what}, {count:,} known pairs"] = partial(
                    by_map, originals=faces, published=view, known=pairs
                )
    return found, attacks


def _codes(found: Released, templates: NDArray[np.float32], log: Log) -> NDArray[np.float32] | None:
    """What the public generator drew the pictures from, as far as it can be read back; None: it is
    no generator whose codes are drawn."""
    method = None if found.manifest is None else found.manifest.method
    if method is None or method.name not in _DRAWN:
        return None
    generator = create(method.name, dict(method.options))
    if getattr(generator, "identity", "virtual") != "virtual":
        return None
    faces, codes = drawn(generator, _DRAWN[method.name])
    read, cosine = reader(np.concatenate(features_of(faces), 1), codes)
    log(f"  codes are read back from pictures at a cosine of {cosine:.2f}")
    return read(templates)


def right(claims: Claims, truth: Claims | None) -> int | None:
    """How many claims are; None: nobody knows."""
    if truth is None:
        return None
    return sum(truth.get(pseudonym) == person for pseudonym, person in claims.items())


def judged(
    name: str, attack: Attack, source: Source, seen: Seen, control: Seen, truth: Claims | None
) -> StructureAttack:
    """One attack, its control beside it, and what the luck of shared sizes comes to.

    Args:
        truth: of those pseudonyms that the attacker does not know.
    """
    claims, others = attack(source, seen), attack(source, control)
    luck = None if truth is None else within_sizes(seen, truth, claims)
    return StructureAttack(
        attack=name,
        named=len(claims),
        right=right(claims, truth),
        chance=len(claims) / max(source.count, 1),
        control_named=len(others),
        control_right=right(others, truth),
        within_sizes=None if luck is None else float(luck.mean()),
        within_sizes_most=None if luck is None else int(np.percentile(luck, 99)),
    )


def in_words(found: StructureAttack, people: int) -> str:
    """A line for a terminal."""

    def told(named: int, right: int | None) -> str:
        return f"{named:,} named" + ("" if right is None else f", {right:,} rightly")

    return (
        f"{found.attack}: of {people:,} people {told(found.named, found.right)} "
        f"(control: {told(found.control_named, found.control_right)}"
        + (
            ""
            if found.within_sizes is None
            else f"; by luck within shared sizes {found.within_sizes:.1f}, at most "
            f"{found.within_sizes_most:,}"
        )
        + ")"
    )


def _records(found: Released) -> pa.Table:
    texts = np.array(list(map(repr, found.seen.kept)))
    return pa.table({"identity": found.seen.pseudonyms.astype(str), "kept": texts})
