"""What the ledger keeps of the rows that a unit was made of, to know them again: a fingerprint
under the owner's key, or where there is none under a key of the output's. ``increments`` asks."""

import hashlib
import hmac

import pyarrow as pa

from ppfr_ops.contracts.ledger import Source
from ppfr_ops.source.plan import content
from ppfr_ops.store.ledger import Ledger


class Fingerprints:
    """Fingerprints of units, as the ledger of a job keeps them.

    Args:
        key: the owner's, of the job.
    """

    def __init__(self, key: bytes | None, ledger: Ledger) -> None:
        self._owned = key is not None
        self._key = key or ledger.derived("sources")

    def of(self, planned: Source, table: pa.Table | None = None) -> Source:
        """A unit's.

        Args:
            planned: as the plan has it.
            table: the unit as it was read; None: it was not.
        """
        now = None if table is None else content(table, self._key)
        pictures = None if table is None else self.pictures(table)
        if self._owned:
            return planned.model_copy(update={"content": now, "pictures": pictures})
        stamp = hmac.new(self._key, planned.stamp.encode(), hashlib.sha256).hexdigest()[:32]
        return Source(stamp=stamp, content=now, files=(), pictures=pictures)

    def pictures(self, table: pa.Table) -> str:
        """Of the pictures of a unit as it was read, whatever other columns were read."""
        return content(table.select(["image"]), self._key)
