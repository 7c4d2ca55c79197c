"""The vault: each published record's original, encrypted, for anyone who holds the owner's key.

``sealing`` is the cryptography, pure; ``keys`` where the master comes from; ``shards`` the files'
form, ``store`` what may be done to them (commit, revoke, rotate, sweep); ``recovery`` gives
originals back or proves that they can be had; ``shares`` splits a master among people; ``audit``
remembers who did what.
"""

from ppfr_ops.vault.keys import FileKey, KeyService, WrongKey, load_key, read_master
from ppfr_ops.vault.sealing import Refused
from ppfr_ops.vault.store import Access, Vault, VaultError

__all__ = [
    "Access",
    "FileKey",
    "KeyService",
    "Refused",
    "Vault",
    "VaultError",
    "WrongKey",
    "load_key",
    "read_master",
]
