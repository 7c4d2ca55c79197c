"""The secret of an output, ``evidence/ledger/secret.json``: of ids, draws and the order of records.

Thrown away, it is gone for good; in its place stays what the output is called outside, which also
says that nothing can be added any more, and that whatever else tells who is whom has to go.
"""

from ppfr_ops.contracts.ledger import RELEASED
from ppfr_ops.keys import derive
from ppfr_ops.store.folder import EVIDENCE, Folder, LedgerError
from ppfr_ops.store.ids import Ids

LEDGER = (EVIDENCE, "ledger")


class Secret(Folder):
    """An output with its secret.

    Args:
        output: any fsspec URL or local path of a folder.
    """

    _ids: Ids | None = None

    @property
    def ids(self) -> Ids:
        """What this output calls its records outside.

        Raises:
            LedgerError: the secret is not there, or damaged.
        """
        if self._ids is None:
            self._ids = Ids(self._secret())
        return self._ids

    def release(self) -> str:
        """Id of the output outside.

        Raises:
            LedgerError: as ``ids``.
        """
        told = str((self.read(*LEDGER, "secret.json") or {}).get("release"))
        return told if RELEASED.fullmatch(told) else self.ids.release()

    def _secret(self) -> bytes:
        secret = self.secret()
        if secret is None:
            raise LedgerError(
                "the key of this release was thrown away, so nothing can be added to it; "
                "--overwrite begins a new release"
                if self.thrown_away()
                else "the secret of the ids is gone: was the output removed?"
            )
        return secret

    def derived(self, purpose: str) -> bytes:
        """A key for one purpose, 32 bytes, from the secret of the output.

        Raises:
            LedgerError: as ``ids``.
        """
        return derive(self._secret(), purpose)

    def throw_away(self) -> None:
        """Forget the secret for good; only what the output is called outside stays."""
        if not self.thrown_away():
            self.write({"release": self.ids.release()}, *LEDGER, "secret.json")
        self._ids = None

    def thrown_away(self) -> bool:
        """Whether the secret was thrown away, so that nothing can be added any more."""
        return "release" in (self.read(*LEDGER, "secret.json") or {})

    def secret(self) -> bytes | None:
        """Of the ids; None if it is not there, or damaged."""
        document = self.read(*LEDGER, "secret.json")
        try:
            secret = bytes.fromhex(str((document or {})["secret"]))
        except (KeyError, ValueError):
            return None
        return secret if len(secret) == 32 else None
