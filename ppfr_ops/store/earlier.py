"""What was published of a unit that is done again for some of its records only.

    OUTPUT/evidence/earlier/UNIT.json            its entry, as it was; written last
    OUTPUT/evidence/earlier/UNIT.KIND.parquet    its shards

It lies there from the moment at which the unit is taken back to the end of the run that leaves
nothing to be done, so a run that is killed in between finds it again.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping

import pyarrow as pa

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.ledger import LedgerEntry
from ppfr_ops.store.documents import Documents, entry_of
from ppfr_ops.store.folder import EVIDENCE
from ppfr_ops.store.secret import LEDGER
from ppfr_ops.store.shards import Tables, read_table

EARLIER = (EVIDENCE, "earlier")


def supersede(ledger: Documents, unit: str) -> None:
    """Take a unit back, and keep what was published of it.

    Raises:
        LedgerError: another run has taken over the output.
    """
    ledger.still_mine()
    data, entry = ledger.read_bytes(*LEDGER, "units", f"{unit}.json"), ledger.entry(unit)
    ledger.remove(*EARLIER, f"{unit}.json")
    if data is not None and entry is not None:
        with contextlib.suppress(FileNotFoundError):  # a shard is gone: then nothing is kept
            for kind, shard in entry.shards.items():
                _copy(ledger, shard.path, f"{unit}.{kind}.parquet")
            ledger.put(data, *EARLIER, f"{unit}.json")
    ledger.retire(unit)


def _copy(ledger: Documents, path: str, name: str) -> None:
    source, target = ledger.path(path), ledger.path(*EARLIER, name)
    if not ledger.local:
        ledger.fs.copy(source, target)
        return
    ledger.make_folder(os.path.dirname(target))
    ledger.remove_path(target)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        ledger.fs.copy(source, target)


def earlier(ledger: Documents, unit: str) -> tuple[LedgerEntry, Tables] | None:
    """Entry and shards as they were; None if they are not there, or not what was committed."""
    entry = entry_of(unit, ledger.read_bytes(*EARLIER, f"{unit}.json"))
    if entry is None:
        return None
    tables: dict[str, pa.Table] = {}
    for kind, shard in entry.shards.items():
        place = (*EARLIER, f"{unit}.{kind}.parquet")
        whole = ledger.size(*place) == shard.bytes
        data = ledger.fs.cat_file(ledger.path(*place)) if whole else b""
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            return None
        tables["records" if kind == "data" else kind] = read_table(data)
    if not {"records", "metrics"} <= tables.keys():
        return None
    none = {"dead_letters": DEAD_LETTERS_SCHEMA.empty_table()}
    return entry, Tables(**(none | tables))


def forget_unlike(ledger: Documents, sealed: Mapping[str, bytes]) -> None:
    """Let go of what nobody vouches for.

    Args:
        sealed: sha256 of the entries of units, as they were signed.
    """
    for name in ledger.names(*EARLIER):
        if name.endswith(".json"):
            data = ledger.read_bytes(*EARLIER, name)
            digest = None if data is None else hashlib.sha256(data).digest()
            if digest is None or sealed.get(name.removesuffix(".json")) != digest:
                ledger.remove(*EARLIER, name)


def forget(ledger: Documents) -> None:
    """Let go of all of it: every unit is done."""
    ledger.still_mine()
    ledger.remove_all(ledger.paths(*EARLIER))
