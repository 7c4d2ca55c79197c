"""Under which key the data keys of a vault are wrapped, and which generation counts.

A rotation makes a new generation. It counts once its document is there, which only one can create,
and whose number is one higher than that of the latest; so nobody who was stopped for a while puts
an old one in the place of a newer.
"""

import os
import re
import secrets
from dataclasses import dataclass, replace
from typing import Any

from ppfr_ops.errors import UserError
from ppfr_ops.store.files import Files
from ppfr_ops.vault.keys import KeyService, WrongKey
from ppfr_ops.vault.sealing import key_check

FORMAT = 2
"""Of ``vault.json`` and the documents beside it."""
_OLDER = 1
"""Without ``generations/``: a rotation wrote ``vault.json`` anew."""
_PURPOSE = b"ppfr vault 1 wrap"
_FOLDER = "generations"
NAME = re.compile(r"[0-9a-f]{8}")
"""Of a generation, which is that of its folder of keys too."""


class VaultError(UserError):
    """The vault cannot be used like this; one line for the user."""


@dataclass(frozen=True)
class Generation:
    """A generation of wrapped keys."""

    name: str
    salt: str
    """32 bytes, hex."""
    check: str
    """``sealing.key_check``."""
    release: str
    """Whose originals they are of."""
    number: int

    @classmethod
    def new(cls, service: KeyService, release: str, number: int) -> "tuple[Generation, bytes]":
        """A generation, and the key that is the vault's while it lasts."""
        salt = os.urandom(32)
        key = service.derive(salt, _PURPOSE)
        return cls(secrets.token_hex(4), salt.hex(), key_check(key), release, number), key

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> "Generation":
        """The generation of a document.

        Raises:
            VaultError: it is damaged, or of another version.
        """
        try:
            if raw["format"] not in (FORMAT, _OLDER):
                raise VaultError(f"the vault has format {raw['format']}, needed: {FORMAT}")
            found = cls(release=str(raw["release"]), **{"number": 0, **raw["generation"]})
            whole = NAME.fullmatch(found.name) and len(bytes.fromhex(found.salt)) == 32
            if not whole or not isinstance(found.number, int):
                raise VaultError("vault.json is damaged")
            return found
        except VaultError:
            raise
        except (KeyError, TypeError, ValueError):
            raise VaultError("vault.json is damaged") from None

    def document(self) -> dict[str, object]:
        """As ``parse`` reads it."""
        about = {name: value for name, value in vars(self).items() if name != "release"}
        return {"format": FORMAT, "release": self.release, "generation": about}

    def key(self, service: KeyService) -> bytes:
        """The key.

        Raises:
            WrongKey: the service has another master.
        """
        key = service.derive(bytes.fromhex(self.salt), _PURPOSE)
        if not secrets.compare_digest(key_check(key), self.check):
            raise WrongKey("the key is not the one of this vault")
        return key


class Generations:
    """The documents of a vault's generations, but for the first."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def number(self) -> int:
        """The highest; 0 if there was no rotation yet. One request."""
        return max(self._numbers(), default=0)

    def latest(self) -> Generation | None:
        """None if there was no rotation yet.

        Raises:
            VaultError: its document is damaged.
        """
        number = self.number()
        return self._read(number) if number else None

    def all(self) -> list[Generation]:
        """In order."""
        return [self._read(number) for number in sorted(self._numbers())]

    def create(self, generation: Generation) -> bool:
        """Make this the latest; False if another is, or the number is taken."""
        document = generation.document()
        if self._files.create(document, *_place(generation.number)):
            return True
        # A creation that is tried again, because its answer got lost, finds itself.
        return self._files.read(*_place(generation.number)) == document

    def _numbers(self) -> list[int]:
        names = (name.removesuffix(".json") for name in self._files.names(_FOLDER))
        return [int(name) for name in names if name.isdecimal()]

    def _read(self, number: int) -> Generation:
        raw = self._files.read(*_place(number))
        if raw is None:
            raise VaultError(f"generation {number} of the vault's keys is damaged")
        return replace(Generation.parse(raw), number=number)


def _place(number: int) -> tuple[str, str]:
    return _FOLDER, f"{number:08d}.json"
