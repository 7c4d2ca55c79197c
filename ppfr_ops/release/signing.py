"""The owner's signature: over a statement about the release (``release.attestation``), which has
the digest of its manifest, and over a seal of the evidence. The manifest has name, size and digest
of every file of the release, of the shards by way of the list of which it has the digest, so the
signature covers every published byte. The seal has, by way of a list of its own, the digest of
every ledger entry, which has those of all shards, so what was planted in the evidence is not signed
by the owner's next run."""

import base64
import contextlib
import hashlib
import re
import secrets
from pathlib import Path
from typing import Literal, Self, cast

import pyarrow as pa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

from ppfr_ops.contracts.ledger import Count, Digest
from ppfr_ops.contracts.manifest import ReleaseManifest
from ppfr_ops.errors import UserError
from ppfr_ops.release.attestation import (
    SIGNATURE,
    PrivateKey,
    PublicKey,
    check_signature,
    known,
    sign_statement,
    signature_of,
    statement,
)
from ppfr_ops.release.files import read_lists
from ppfr_ops.release.listing import Unlisted, read_rows, write_rows
from ppfr_ops.store.earlier import EARLIER, forget, forget_unlike
from ppfr_ops.store.entries import batched
from ppfr_ops.store.folder import EVIDENCE, RELEASE, Folder
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.store.private import read_private


class Signature(BaseModel):
    """A bare signature, of a document of the evidence."""

    model_config = ConfigDict(extra="forbid")

    algorithm: Literal["Ed25519", "ECDSA"] = "Ed25519"
    public_key: str = Field(pattern=r"^[A-Za-z0-9+/]{43,220}={0,2}$")
    """Ed25519: 32 bytes; ECDSA: DER."""
    signature: str = Field(pattern=r"^[A-Za-z0-9+/]{86,190}={0,2}$")

    def holds(self, data: bytes, key: PublicKey) -> bool:
        """Whether it is of this data by this key, and names it."""
        try:
            check_signature(base64.b64decode(self.signature), data, key)
        except (InvalidSignature, ValueError):
            return False
        return self.public_key == _named(key)


class Signed(BaseModel):
    """A document of the evidence that may be signed."""

    model_config = ConfigDict(extra="forbid")

    signature: Signature | None = None

    def _signed(self) -> bytes:
        return self.model_dump_json(exclude={"signature"}).encode()

    def signed_by(self, key: PrivateKey | None) -> Self:
        """The same, signed; None: as it is."""
        made = None if key is None else make_signature(self._signed(), key)
        return self.model_copy(update={"signature": made})

    def is_by(self, key: PublicKey) -> bool:
        """Whether this key signed it."""
        return self.signature is not None and self.signature.holds(self._signed(), key)


_KINDS = "of the kinds Ed25519, P-256, P-384 or P-521"


def load_signing_key(path: str) -> PrivateKey:
    """A private key, PEM, unencrypted: Ed25519 (``openssl genpkey -algorithm ed25519``), or on a
    NIST curve, which ``model_signing verify`` can check.

    Raises:
        UserError: no such file, one that others can read, or another kind of key.
    """
    data = read_private(path, "the signing key", "is no readable PEM file")
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError):
        raise UserError("the signing key is no readable PEM file") from None
    if not known(key):
        raise UserError(f"the signing key is not {_KINDS}")
    return cast(PrivateKey, key)


def load_public_key(path: str) -> PublicKey:
    """A public key, PEM (``openssl pkey -in KEY -pubout``).

    Raises:
        UserError: no such file, or another kind of key.
    """
    try:
        key = serialization.load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError):
        raise UserError("the public key is no readable PEM file") from None
    if not known(key):
        raise UserError(f"the public key is not {_KINDS}")
    return cast(PublicKey, key)


def make_signature(data: bytes, key: PrivateKey) -> Signature:
    public = key.public_key()
    return Signature(
        algorithm="Ed25519" if isinstance(public, Ed25519PublicKey) else "ECDSA",
        public_key=_named(public),
        signature=base64.b64encode(signature_of(data, key)).decode(),
    )


def _named(key: PublicKey) -> str:
    if isinstance(key, Ed25519PublicKey):
        return base64.b64encode(key.public_bytes_raw()).decode()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(key.public_bytes(serialization.Encoding.DER, form)).decode()


def sign_release(ledger: Ledger, manifest: ReleaseManifest, key: PrivateKey) -> None:
    """Write ``release/manifest.sig``.

    Raises:
        UserError: the list of the shards is not that of the manifest.
    """
    try:
        lists = read_lists(ledger, manifest, RELEASE)
    except Unlisted as fault:
        raise UserError(f"the release's list of files {fault}; see ppfr verify") from None
    bundle = sign_statement(statement(manifest, *lists), key)
    ledger.put(bundle.text(), RELEASE, SIGNATURE)


def sign(output: str, key: PrivateKey) -> None:
    """Write ``release/manifest.sig``, and seal the evidence anew.

    Raises:
        UserError: there is no manifest.
    """
    ledger = Ledger(output)
    data = ledger.read_bytes(RELEASE, "manifest.json")
    if data is None:
        raise UserError("there is no release/manifest.json to sign: the run has not finished")
    sign_release(ledger, ReleaseManifest.model_validate_json(data), key)
    found = read_seal(ledger)
    seal(ledger, found.version if found is not None else 1, key)


# -- the seal of the evidence ---------------------------------------------------------------


_LIST = re.compile(r"seal\.[0-9a-f]{16}\.parquet")
_ENTRIES_SCHEMA = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
    ]
)


class EntryList(BaseModel):
    """Where unit and sha256 of every ledger entry are, beside the seal. Every list has a name of
    its own, so that the seal before holds until there is a new one."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(pattern=rf"^{_LIST.pattern}$")
    bytes: Count
    sha256: Digest
    rows: Count


class Seal(Signed):
    """``evidence/seal.json``."""

    version: int = Field(ge=0)
    """Of the release, when this was written."""
    release: str
    """sha256 of the release's manifest, hex; empty where there is none yet."""
    evidence: str
    """sha256 of the owner's manifest, hex."""
    run: str
    """sha256 of the settings of the run, hex."""
    listing: EntryList
    """Where the digests of the entries are."""


def seal(ledger: Ledger, version: int, key: PrivateKey | None) -> None:
    """Write the seal of what lies in the evidence now.

    Raises:
        LedgerError: another run has taken over the output.
    """
    ledger.still_mine()
    name = f"seal.{secrets.token_hex(8)}.parquet"
    there = ((unit, digest) for unit, digest in ledger.digests(ledger.entries()) if digest)
    batches = [
        pa.record_batch(list(map(list, zip(*some, strict=True))), schema=_ENTRIES_SCHEMA)
        for some in batched(there)
    ]
    rows = pa.Table.from_batches(batches, _ENTRIES_SCHEMA)
    made = Seal(
        version=version,
        release=_digest(ledger, RELEASE, "manifest.json"),
        evidence=_digest(ledger, EVIDENCE, "manifest.json"),
        run=_digest(ledger, *LEDGER, "run.json"),
        listing=EntryList(path=name, **write_rows(ledger, rows, EVIDENCE, name)),
    )
    ledger.still_mine()
    sealed = made.signed_by(key).model_dump_json(indent=1)
    ledger.put(sealed.encode(), EVIDENCE, "seal.json")
    for other in ledger.names(EVIDENCE):
        if _LIST.fullmatch(other) and other != name:
            ledger.remove(EVIDENCE, other)


def read_seal(folder: Folder) -> Seal | None:
    """None if there is none, or none that can be read."""
    return folder.model(Seal, EVIDENCE, "seal.json")


def unlike_seal(ledger: Ledger, found: Seal) -> list[str]:
    """Units whose entries are not those that were sealed, or gone.

    Raises:
        Unlisted: the list of the entries is not what was sealed.
    """
    table = read_rows(ledger, found.listing, _ENTRIES_SCHEMA, EVIDENCE, found.listing.path)
    unlike = []
    for batch in table.to_batches(1 << 12):
        units, digests = (column.to_pylist() for column in batch)
        there = zip(ledger.digests(units), digests, strict=True)
        unlike += [unit for (unit, found_now), digest in there if found_now != digest]
    return unlike


def sealed_entries(ledger: Ledger, found: Seal) -> dict[str, bytes]:
    """By unit, sha256 of its entry as it was sealed.

    Raises:
        Unlisted: the list of the entries is not what was sealed.
    """
    table = read_rows(ledger, found.listing, _ENTRIES_SCHEMA, EVIDENCE, found.listing.path)
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def drop_unsealed_units(ledger: Ledger, key: PrivateKey) -> str | None:
    """Before a run that will sign: take back the units whose entries are not those that were
    sealed, and note it. Units that were committed since the last seal, by a run that did not get to
    its end, are taken as they are.

    Returns:
        Why the run must not sign: there are units that nothing of this key vouches for. None: it
        may.
    """
    found = read_seal(ledger)
    entries = ledger.entries()
    unlike = None
    if found is not None and found.is_by(key.public_key()):
        with contextlib.suppress(Unlisted):
            unlike = unlike_seal(ledger, found)
    if unlike is None:
        if entries:
            return (
                "what earlier runs left bears no seal of this key, so it is not signed; check it "
                "with ppfr verify --against INPUT and sign it with --sign, or --overwrite"
            )
        forget(ledger)
        seal(ledger, 0, key)
        return None
    if found is not None and ledger.names(*EARLIER):
        forget_unlike(ledger, sealed_entries(ledger, found))
    for unit in unlike:
        if unit not in entries:
            continue
        if ledger.take_back(unit, "its entry is not what was sealed, and its source is gone"):
            ledger.noticed.append(f"unit {unit}: its entry is not what was sealed; done again")
    return None


def _digest(folder: Folder, *parts: str) -> str:
    data = folder.read_bytes(*parts)
    return "" if data is None else hashlib.sha256(data).hexdigest()
