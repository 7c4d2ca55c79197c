"""A small output with its vault, made without engine, method or models."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.store.ledger import Ledger, Tables
from ppfr_ops.vault import FileKey, Vault
from ppfr_ops.vault.recovery import Opened, originals_of

MASTER = bytes(range(32))
UNITS, ROWS = 3, 70
"""More rows than a row group of the vault has."""


def original(record: str) -> bytes:
    """Bytes that look like a JPEG's, of a length of their own."""
    noise = hashlib.shake_256(record.encode()).digest(900 + len(record) * 37 + int(record[-3:]))
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + noise


@dataclass
class World:
    """An output and its vault."""

    output: str
    url: str

    @property
    def vault(self) -> Vault:
        return Vault(self.url)

    def opened(self, master: bytes = MASTER) -> Opened:
        return Opened(self.output, self.vault, FileKey(master))

    @property
    def records(self) -> list[str]:
        """Ids inside."""
        return [f"u{unit:06d}-{row:06d}" for unit in range(UNITS) for row in range(ROWS)]

    def outside(self, record: str) -> str:
        return Ledger(self.output).ids.record(record)

    def inside(self) -> dict[str, str]:
        """Ids inside by those outside."""
        return Ledger(self.output).ids.rows(self.records)


def tables(unit: str, salt: str = "") -> tuple[Tables, pa.Table]:
    """What is published of a unit, and the unit as it was read; the last row is a dead letter."""
    names = [f"{unit}-{row:06d}" for row in range(ROWS)]
    pictures = [{"bytes": f"picture of {n}{salt}".encode(), "path": f"{n}.jpg"} for n in names]
    records = pa.table(
        [names, pa.array(pictures, IMAGE_TYPE), [f"person {i % 7}" for i in range(ROWS)]],
        ["record_id", "image", "identity"],
    )
    read = pa.table(
        [[*names, f"{unit}-999999"], [original(name) for name in [*names, "dead 000"]]],
        ["record_id", "image"],
    )
    schema = metrics_schema()
    nulls = [pa.nulls(ROWS, field.type) for field in list(schema)[1:]]
    metrics = pa.table([names, *nulls], schema=schema)
    return Tables(records, metrics, DEAD_LETTERS_SCHEMA.empty_table()), read


def make(folder: Path, name: str = "a", salt: str = "") -> World:
    """An output with a vault."""
    world = World(str(folder / f"out-{name}"), str(folder / f"vault-{name}"))
    access = world.vault.access(FileKey(MASTER))
    world.vault.establish(access)
    ledger = Ledger(world.output)
    ledger.open({"--vault": access.release}, seed=1)
    for number in range(UNITS):
        unit = f"u{number:06d}"
        published, read = tables(unit, salt)
        entry = ledger.commit(unit, published, ROWS, method_digest="", settings_digest="")
        originals = originals_of(published.records, read)
        world.vault.commit(access, unit, entry.copy_id, originals)
    return world


def all_bytes(folder: str) -> dict[str, bytes]:
    """Every file below a folder."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found
