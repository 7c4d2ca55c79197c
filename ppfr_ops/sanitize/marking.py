"""The marks in pictures that need a key of the owner's: Content Credentials, the invisible mark."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.store.private import read_long, read_private

INVISIBLE, CHAIN, SIGNER = "invisible mark", "certificates of c2pa", "key of c2pa"
ROLES = (INVISIBLE, CHAIN, SIGNER)
"""Of the secrets of a job (``Job.secrets``)."""
_LEAST_KEY = 16


def read_mark_key(path: str) -> bytes:
    """The key of the invisible mark.

    Raises:
        UserError: no readable file, one that others can read, or too short.
    """
    return read_long(path, "the key of the invisible mark", _LEAST_KEY)


def read_marks(options: SanitizeOptions, method: Anonymizer) -> dict[str, bytes]:
    """What the marks need, by role; a picture is signed to find out whether it can be.

    Raises:
        UserError: a file cannot be used, or the options do not go together.
    """
    found: dict[str, bytes] = {}
    if options.invisible_mark is not None:
        found[INVISIBLE] = read_mark_key(options.invisible_mark)
    if (options.c2pa is None) != (options.c2pa_key is None):
        raise UserError("--c2pa goes with --c2pa-key: certificates, and the key of the first")
    if options.c2pa is None or options.c2pa_key is None:
        if options.c2pa_training is not None:
            raise UserError("--c2pa-training goes with --c2pa")
        return found
    if not (options.mark and method.draws_faces):
        raise UserError(
            "--c2pa signs that a model drew a face; "
            + ("it goes with --mark" if method.draws_faces else f"{method.name} draws none")
        )
    try:
        found[CHAIN] = Path(options.c2pa).read_bytes()
    except OSError as error:
        raise UserError(f"--c2pa: the file cannot be read ({type(error).__name__})") from None
    found[SIGNER] = read_private(options.c2pa_key, "the key of the certificate")
    tried = encoding(options, method, found)
    signed = tried.encode(np.zeros((16, 16, 3), np.uint8))
    from ppfr_ops.imaging.credentials import credentials_fault

    if credentials_fault(signed, str(tried.source_type), options.c2pa_training) is not None:
        raise UserError(
            "--c2pa, --c2pa-key: what is signed with them does not hold: is the key that of the "
            "first certificate, and is that one valid today?"
        )
    return found


def encoding(
    options: SanitizeOptions, method: Anonymizer, secrets: Mapping[str, bytes]
) -> Encoding:
    """How pictures are stored.

    Args:
        secrets: of ``read_marks``, among others.
    """
    plain = options.encoding(method.draws_faces)
    credentials = invisible = None
    if INVISIBLE in secrets:
        from ppfr_ops.imaging.invisible import InvisibleMark

        invisible = InvisibleMark(secrets[INVISIBLE])
    if SIGNER in secrets and plain.source_type is not None:
        from ppfr_ops.imaging.credentials import Credentials

        chain, key = secrets[CHAIN], secrets[SIGNER]
        credentials = Credentials(chain, key, plain.source_type, options.c2pa_training)
    return replace(plain, credentials=credentials, invisible=invisible)


def marks_told(options: SanitizeOptions) -> dict[str, Any]:
    """What a manifest says of these marks; nothing of those that are not there."""
    there = {"c2pa": options.c2pa, "invisible_mark": options.invisible_mark}
    told: dict[str, Any] = {name: True for name, file in there.items() if file is not None}
    return told | ({"c2pa_training": options.c2pa_training} if options.c2pa_training else {})
