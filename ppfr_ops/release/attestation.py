"""What the owner signs: an in-toto statement in a DSSE envelope in a Sigstore bundle, as OpenSSF
Model Signing writes and reads them. ``model_signing verify`` checks every file of a release by it,
in-toto tools read what was done from it, and ``openssl`` checks the signature.

The statement is a function of manifest and list of shards, so verifying makes it anew and compares.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppfr_ops.contracts.attestation import Facts, Predicate, ReleaseStatement, Resource, Subject
from ppfr_ops.contracts.manifest import ReleaseManifest
from ppfr_ops.release.listing import files_of

SIGNATURE = "manifest.sig"
"""In a release: the bundle."""

LARGEST = 64 << 20
"""Bytes of a bundle that is read."""

LISTED = 100_000
"""Shards or photographs that a statement names one by one, at most. Of more it names the list
alone, which has the digest of each."""

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_HASHES: dict[int, hashes.HashAlgorithm] = {
    256: hashes.SHA256(),
    384: hashes.SHA384(),
    521: hashes.SHA512(),
}
"""By size of the curve, bits."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Hint(_Model):
    hint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """sha256 of the public key in PEM."""


class _Timestamp(_Model):
    signedTimestamp: str
    """Of the signature: an answer by RFC 3161, DER, base64 (``release.timestamp``)."""


class _Timestamps(_Model):
    rfc3161Timestamps: list[_Timestamp] = Field(min_length=1, max_length=1)


class _Material(_Model):
    publicKey: _Hint
    tlogEntries: list[Any] = Field(default=[], max_length=0)
    timestampVerificationData: _Timestamps | None = None


class _Signed(_Model):
    sig: str = Field(pattern=r"^[A-Za-z0-9+/]{86,190}={0,2}$")
    keyid: Literal[""] = ""


class _Envelope(_Model):
    payload: str
    payloadType: Literal["application/vnd.in-toto+json"] = "application/vnd.in-toto+json"
    signatures: list[_Signed] = Field(min_length=1, max_length=1)


class Bundle(_Model):
    """``manifest.sig``, names as Sigstore's bundle has them."""

    mediaType: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"] = (
        "application/vnd.dev.sigstore.bundle.v0.3+json"
    )
    verificationMaterial: _Material
    dsseEnvelope: _Envelope

    def text(self) -> bytes:
        """The one way to write it."""
        return (self.model_dump_json(indent=1, exclude_none=True) + "\n").encode()

    @property
    def signature(self) -> bytes:
        """What a time stamp is on."""
        return base64.b64decode(self.dsseEnvelope.signatures[0].sig)

    @property
    def timestamp(self) -> bytes | None:
        """An authority's answer; None: there is none.

        Raises:
            ValueError: it is not base64.
        """
        found = self.verificationMaterial.timestampVerificationData
        if found is None:
            return None
        return base64.b64decode(found.rfc3161Timestamps[0].signedTimestamp, validate=True)

    def with_timestamp(self, token: bytes) -> "Bundle":
        """The same with an authority's answer."""
        one = _Timestamp(signedTimestamp=base64.b64encode(token).decode())
        told = _Timestamps(rfc3161Timestamps=[one])
        material = self.verificationMaterial.model_copy(update={"timestampVerificationData": told})
        return self.model_copy(update={"verificationMaterial": material})

    @property
    def payload(self) -> bytes:
        """The statement, as it was signed.

        Raises:
            ValueError: it is not base64.
        """
        return base64.b64decode(self.dsseEnvelope.payload, validate=True)


def statement(
    manifest: ReleaseManifest, shards: pa.Table, photographs: Mapping[str, str] | None = None
) -> bytes:
    """What is signed.

    Args:
        shards: as ``listing.read_files`` gives them.
        photographs: of a release of files, as ``files.read_sums`` gives them.
    """
    digests = {
        "manifest.json": hashlib.sha256(manifest.text()).hexdigest(),
        manifest.listing.path: manifest.listing.sha256,
    }
    few = max(len(shards), len(photographs or ())) <= LISTED
    named = files_of(manifest, shards) if few else iter(manifest.files)
    digests |= {file.path: file.sha256 for file in named}
    digests |= (photographs or {}) if few else {}
    resources = [Resource(name=name, digest=digests[name]) for name in sorted(digests)]
    together = hashlib.sha256(b"".join(bytes.fromhex(item.digest) for item in resources))
    facts = manifest.model_dump(mode="json", exclude={"files", "listing", "schema_version"})
    made = ReleaseStatement(
        subject=[Subject(name=manifest.release, digest={"sha256": together.hexdigest()})],
        predicate=Predicate(resources=resources, ppfr=Facts.model_validate(facts)),
    )
    return made.model_dump_json(by_alias=True).encode()


def sign_statement(payload: bytes, key: PrivateKey) -> Bundle:
    """A statement, signed."""
    signed = _Signed(sig=base64.b64encode(signature_of(_encoded(payload), key)).decode())
    return Bundle(
        verificationMaterial=_Material(publicKey=_Hint(hint=_hint(key.public_key()))),
        dsseEnvelope=_Envelope(payload=base64.b64encode(payload).decode(), signatures=[signed]),
    )


def read_bundle(data: bytes | None) -> Bundle | None:
    """None if there is none, or none that can be read, or one that holds more than it must."""
    try:
        found = None if data is None else Bundle.model_validate_json(data)
        if found is None or found.text() != data or len(data) > LARGEST:
            return None
        if found.timestamp is not None and found.with_timestamp(found.timestamp).text() != data:
            return None
        rewritten = base64.b64encode(found.payload).decode()
        return found if rewritten == found.dsseEnvelope.payload else None
    except (ValidationError, ValueError, RecursionError):
        return None


def signature_fault(data: bytes | None, manifest: bytes, key: PublicKey) -> str | None:
    """What is wrong with the signature of a release; None if nothing.

    Args:
        data: the bundle; None: there is none.
        manifest: of the release, as it lies there. That the statement is the release's in all else
            has to be looked at besides.

    Raises:
        InvalidSignature: it is not of this manifest, or not by this key.
    """
    if data is None:
        return "there is no signature"
    found = read_bundle(data)
    if found is None:
        more = data.lstrip().startswith(b'{\n "mediaType"')
        return "holds more than a signature" if more else "is no readable signature"
    if found.verificationMaterial.publicKey.hint != _hint(key):
        raise InvalidSignature
    (signed,) = found.dsseEnvelope.signatures
    check_signature(base64.b64decode(signed.sig), _encoded(found.payload), key)
    try:
        resources = json.loads(found.payload)["predicate"]["resources"]
        digests = [item["digest"] for item in resources if item["name"] == "manifest.json"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "signs no statement about a release"
    if digests != [hashlib.sha256(manifest).hexdigest()]:
        raise InvalidSignature
    return None


def signature_of(data: bytes, key: PrivateKey) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(data)
    return key.sign(data, ec.ECDSA(_HASHES[key.curve.key_size]))


def check_signature(signature: bytes, data: bytes, key: PublicKey) -> None:
    """
    Raises:
        InvalidSignature: it is not of this data by this key.
    """
    if isinstance(key, Ed25519PublicKey):
        key.verify(signature, data)
    else:
        key.verify(signature, data, ec.ECDSA(_HASHES[key.curve.key_size]))


def known(key: object) -> bool:
    """Whether a key is of a kind that signs releases: Ed25519, or on a NIST curve of 256, 384 or
    521 bits."""
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return key.curve.name in ("secp256r1", "secp384r1", "secp521r1")
    return isinstance(key, Ed25519PrivateKey | Ed25519PublicKey)


def _hint(key: PublicKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def _encoded(payload: bytes) -> bytes:
    """What DSSE has signed (its pre-authentication encoding)."""
    kind = _PAYLOAD_TYPE
    return f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
