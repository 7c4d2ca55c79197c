"""From published pictures back to what they were made of, for the owner, who has the input."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.errors import UserError
from ppfr_ops.release.files import named
from ppfr_ops.release.publish import owners_manifest
from ppfr_ops.sanitize.fingerprints import Fingerprints
from ppfr_ops.sanitize.prepare import owner_key, read_key
from ppfr_ops.source.plan import Columns, Plan, plan, read_unit, record_id
from ppfr_ops.store.ledger import Ledger
from ppfr_ops.store.shards import read_table


def planned(
    output: str, source: str, key_file: str | None
) -> tuple[Ledger, Manifest, Plan, bytes | None]:
    """What a run has left, what it was made of, and the owner's key.

    Args:
        source, key_file: as ``originals`` has them.

    Raises:
        UserError: no evidence, or another input.
    """
    ledger = Ledger(output)
    manifest = owners_manifest(ledger)
    key = None
    if key_file is not None:
        key = owner_key(read_key(key_file), manifest.options.get("draws") != "system")
    chosen = planned_anew(manifest, source, Columns(manifest.options.get("image_column")), key)
    if chosen.digest() != manifest.plan_digest:
        raise UserError(
            "--input is not what the run was given, or has changed since; a run with "
            "--identity-key-file needs it here, too"
        )
    return ledger, manifest, chosen, key


def originals(
    output: str,
    source: str,
    names: Sequence[str],
    key_file: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Mapping[str, bytes]:
    """The original pictures of published ones; of a face that was cut out, its photograph.

    Args:
        source: the run's input.
        names: of published pictures, as ``release.export`` gives them.
        key_file: of the run, if it had one.
        log: is told of pictures that are left out because their unit's are others now, and of units
            that cannot be checked.

    Returns:
        Encoded, by name.

    Raises:
        UserError: no evidence, or most of it is another input.
    """
    ledger, manifest, chosen, key = planned(output, source, key_file)
    wanted = _ids(ledger, manifest)
    inside = {wanted[name]: name for name in names if name in wanted}
    fingerprints, others, unknown = Fingerprints(key, ledger), 0, 0
    found = {}
    for number, rows in groupby(_rows(ledger, chosen, inside), itemgetter(0)):
        unit, mine = chosen.units[number], [(row, ident) for _, row, ident in rows]
        table = read_unit(chosen, unit)
        entry = ledger.entry(unit.id)
        noted = None if entry is None or entry.source is None else entry.source.pictures
        if noted is None:
            unknown += len(mine)
        elif noted != fingerprints.pictures(table):
            others += len(mine)
            continue
        for row, ident in mine:
            picture = table["image"][row].as_py()
            if picture is not None:
                found[inside[ident]] = picture
    _tell(others, unknown, len(names), log)
    return found


def _tell(others: int, unknown: int, count: int, log: Callable[[str], None]) -> None:
    if 2 * others >= count > 0:
        raise UserError(
            f"--input is not what the run was given: {others} of {count} pictures are of units "
            "that hold others now"
        )
    if others:
        log(f"{others} of {count} pictures are of units that hold others now: left out")
    if unknown:
        log(f"whether {unknown} of {count} pictures are what the run was given was not noted")


def planned_anew(manifest: Manifest, source: str, columns: Columns, key: bytes | None) -> Plan:
    """The plan of an input with the options of a run.

    Args:
        key: of the run's ids, if it had one.
    """
    options = manifest.options
    return plan(
        source,
        columns,
        format=str(options.get("input_format", "auto")),
        unit_rows=int(options.get("unit_rows", 1000)),
        least_units=int(options.get("least_units", 1)),
        key=key,
        limit=options.get("limit"),
    )


def _ids(ledger: Ledger, manifest: Manifest) -> dict[str, str]:
    """Record ids outside, by name of the published picture."""
    paths: dict[str, str] = {}
    for entry in ledger.entries().values():
        if (shard := entry.shards.get("data")) is not None:
            data = ledger.fs.cat_file(ledger.path(shard.path))
            table = read_table(data, ["record_id", "image.path"])
            cells = (cell["path"] for cell in table["image"].to_pylist())
            paths.update(zip(table["record_id"].to_pylist(), cells, strict=True))
    if manifest.options.get("output_form") == "files":
        number = manifest.options.get("names") == "number"
        return {path: ident for ident, path in named(paths, "number" if number else "keep").items()}
    return {os.path.basename(path): ident for ident, path in paths.items()}


def _rows(
    ledger: Ledger, chosen: Plan, wanted: Mapping[str, str]
) -> Iterator[tuple[int, int, str]]:
    """Number of the unit, row, and id outside, of the records that are wanted."""
    crops: dict[str, list[str]] = {}
    for entry in ledger.entries().values():
        if (shard := entry.shards.get("detections")) is not None:
            data = ledger.fs.cat_file(ledger.path(shard.path))
            for row in read_table(data, ["record_id", "source_id"]).to_pylist():
                if row["record_id"] in wanted:
                    crops.setdefault(row["source_id"], []).append(row["record_id"])
    for number, unit in enumerate(chosen.units):
        for row in range(unit.rows):
            inside = record_id(unit.id, row)
            outside = ledger.ids.record(inside)
            if outside in wanted:
                yield number, row, outside
            else:
                yield from ((number, row, name) for name in crops.get(inside, ()))
