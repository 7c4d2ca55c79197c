"""A master among n people, any k of whom can put it together (Shamir, CACM 1979).

The polynomials are PyCryptodome's, over GF(2^128), one for each half of the 32 bytes. Fewer than k
shares tell nothing about the master; nothing in a share tells a wrong one from a right one, so each
bears a digest of the master, by which ``join`` knows its result.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from Crypto.Protocol.SecretSharing import Shamir

from ppfr_ops.vault.keys import WrongKey
from ppfr_ops.vault.sealing import KEY_BYTES

_HALF = KEY_BYTES // 2
_DOMAIN = b"ppfr vault share check"


@dataclass(frozen=True)
class Share:
    """One person's share; a secret."""

    set: str
    """Which splitting it comes from."""
    number: int
    needed: int
    of: int
    share: str
    """32 bytes, hex."""
    check: str
    """Digest of the master, hex."""

    def __str__(self) -> str:
        return json.dumps({"ppfr-vault-share": 1, **asdict(self)}, indent=1) + "\n"

    def __repr__(self) -> str:
        return f"Share({self.number} of {self.of})"


def _check(master: bytes) -> str:
    return hmac.new(_DOMAIN, master, hashlib.sha256).hexdigest()


def split(master: bytes, needed: int, of: int) -> list[Share]:
    """Split a master.

    Args:
        master: 32 bytes.
        needed: how many shares put it together; 2 at least.
        of: how many there are; 255 at most.

    Raises:
        WrongKey: numbers that make no sense.
    """
    if not 2 <= needed <= of <= 255:
        raise WrongKey("2 <= shares needed <= shares made <= 255")
    halves = [Shamir.split(needed, of, part) for part in (master[:_HALF], master[_HALF:])]
    name, check = secrets.token_hex(4), _check(master)
    return [
        Share(name, number, needed, of, (first + second).hex(), check)
        for (number, first), (_, second) in zip(*halves, strict=True)
    ]


def parse(text: str) -> Share:
    """A share from its file.

    Raises:
        WrongKey: it has another form.
    """
    try:
        raw = json.loads(text)
        if raw.pop("ppfr-vault-share") != 1:
            raise ValueError
        share = Share(**raw)
        if len(bytes.fromhex(share.share)) != KEY_BYTES or not 1 <= share.number <= 255:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WrongKey("that is no share of a vault's key") from None
    return share


def join(shares: Sequence[Share]) -> bytes:
    """Put a master together.

    Raises:
        WrongKey: too few, of different masters, or one was changed.
    """
    mine = {share.number: share for share in shares}
    if len({(share.set, share.needed, share.check) for share in shares}) != 1:
        raise WrongKey("the shares are of different splittings")
    needed = shares[0].needed
    if len(mine) < needed:
        raise WrongKey(f"{len(mine)} shares are too few; needed: {needed}")
    chosen = list(mine.values())[:needed]
    master = b"".join(
        Shamir.combine([(s.number, bytes.fromhex(s.share)[part]) for s in chosen])
        for part in (slice(0, _HALF), slice(_HALF, None))
    )
    if not hmac.compare_digest(_check(master), chosen[0].check):
        raise WrongKey("the shares do not fit together; one of them was changed")
    return master
