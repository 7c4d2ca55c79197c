"""A time stamp on a release's signature (RFC 3161): an authority says that it was there then.

What is sent to the authority is the sha256 of the signature and a random number. Its answer lies in
the bundle where Sigstore has it. Needs the extra ``timestamp``.
"""

import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from ppfr_ops.errors import UserError, describe, require
from ppfr_ops.release.attestation import SIGNATURE, Bundle, read_bundle
from ppfr_ops.store.folder import RELEASE, Folder

_SECONDS = 30
_LARGEST = 1 << 16
"""Bytes of an answer."""


def timestamped(output: str, roots: str, url: str | None) -> datetime | str:
    """When the signature of an output or of a release was there, by its time stamp; or what is
    wrong with that.

    Args:
        roots: file of certificates, PEM; one of them has to vouch for the authority.
        url: of an authority that shall stamp it first; None: look at the stamp that is there.

    Raises:
        UserError: a file cannot be read, or the authority does not answer as it should.
    """
    try:
        certificates = Path(roots).read_bytes()
    except OSError as error:
        raise UserError(f"--timestamp-root cannot be read ({type(error).__name__})") from None
    if url is not None:
        return stamp(output, url, certificates)
    folder = Folder(output)
    place = (RELEASE,) if folder.exists(RELEASE, "manifest.json") else ()
    bundle = read_bundle(folder.read_bytes(*place, SIGNATURE))
    return "is no signature" if bundle is None else stamped_at(bundle, certificates)


def stamp(output: str, url: str, roots: bytes) -> datetime:
    """Have the signature of an output's release stamped, in place of a stamp that it may bear.

    Args:
        url: of the authority.
        roots: certificates, PEM; one of them has to vouch for the authority.

    Returns:
        The time, as the authority says it.

    Raises:
        UserError: there is no signature, or the authority does not answer as it should.
    """
    require("rfc3161_client")
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    folder = Folder(output)
    bundle = read_bundle(folder.read_bytes(RELEASE, SIGNATURE))
    if bundle is None:
        raise UserError("--timestamp: there is no signature to be stamped; --sign makes one")
    request = TimestampRequestBuilder(bundle.signature, HashAlgorithm.SHA256).build()
    head = {"Content-Type": "application/timestamp-query"}
    if not url.startswith(("http://", "https://")):
        raise UserError("--timestamp: expected the http address of an authority")
    try:
        asked = urllib.request.Request(url, request.as_bytes(), head)
        with urllib.request.urlopen(asked, timeout=_SECONDS) as answer:
            token = answer.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        what = describe(error).partition(" at ")[0]
        raise UserError(f"--timestamp: no answer from the authority ({what})") from None
    stamped = bundle.with_timestamp(token)
    found = stamped_at(stamped, roots, request.nonce)
    if isinstance(found, str):
        raise UserError(f"--timestamp: the answer {found}")
    folder.put(stamped.text(), RELEASE, SIGNATURE)
    return found


def stamped_at(bundle: Bundle, roots: bytes, nonce: int | None = None) -> datetime | str:
    """When a signature was there, by its stamp; or what is wrong with that.

    Args:
        roots: certificates, PEM; one of them has to vouch for the authority.
        nonce: of the request that was just answered.

    Raises:
        UserError: the certificates cannot be read, or the extra is not installed.
    """
    require("rfc3161_client")
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    try:
        certificates = x509.load_pem_x509_certificates(roots)
    except ValueError:
        raise UserError("--timestamp-root: no readable certificates, PEM") from None
    token = bundle.timestamp
    if token is None:
        return "bears no time stamp"
    if len(token) > _LARGEST:
        return "is larger than a time stamp"
    verifier: Any = VerifierBuilder(roots=certificates, nonce=nonce).build()
    try:
        response = decode_timestamp_response(token)
        verifier.verify_message(response, bundle.signature)
        return response.tst_info.gen_time.astimezone(UTC)
    except (VerificationError, ValueError):
        return "is no time stamp on this signature by an authority under these certificates"
