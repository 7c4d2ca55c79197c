"""Content Credentials (C2PA) in published pictures: a manifest signed with the owner's certificate.

It says that the picture was made by a trained model and by this program, perhaps whether machines
may be trained with it, and nothing else: no thumbnail, no title, no ingredient, no time. What
differs between two pictures of a release are hashes, signatures, and random ids and salts.

Needs the extra ``c2pa``. What is native is made on first use, in the process that signs.
"""

import io
import json
from importlib.util import find_spec
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from ppfr_ops.errors import UserError, require
from ppfr_ops.imaging.marks import assertions

_SETTINGS = {
    # A thumbnail would take ten times the room of the picture, and looking again at what was just
    # signed a hundred times the time.
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {
        "verify_after_sign": False,
        "verify_trust": False,
        "ocsp_fetch": False,
        "remote_manifest_fetch": False,
    },
}
_GENERATOR = "ppfr_ops"
_CLAIM = {
    *("claim_generator_info", "instance_id", "assertions", "signature_info", "label"),
    "claim_version",
}
"""What a manifest may hold."""


def can_check() -> bool:
    """Whether ``credentials_fault`` can be called: the extra is installed."""
    return find_spec("c2pa") is not None


def _library() -> Any:
    require("c2pa")
    import c2pa

    return c2pa


class Credentials:
    """Signs pictures.

    Args:
        chain: certificates, PEM, the signer's first.
        key: the signer's, PEM: on a NIST curve, or Ed25519.
        source_type: of the pictures, see ``imaging.marks``.
        training: as in ``imaging.marks.assertions``.

    Raises:
        UserError: the key cannot be used, or the extra is not installed.
    """

    def __init__(self, chain: bytes, key: bytes, source_type: str, training: str | None) -> None:
        require("c2pa")
        self._chain = chain
        self._algorithm, self._key = _usable(key)
        said = assertions(source_type, training).items()
        told = [{"label": label, "data": data} for label, data in said]
        manifest = {"claim_generator_info": [{"name": _GENERATOR}], "assertions": told}
        self._manifest = json.dumps(manifest)
        self._native: tuple[Any, Any] | None = None

    def __repr__(self) -> str:
        return "Credentials()"

    def signed(self, data: bytes, form: str) -> bytes:
        """A picture with its manifest.

        Args:
            form: ``jpeg``, ``png`` or ``webp``.

        Raises:
            UserError: certificates and key do not fit each other, or C2PA takes no such ones.
        """
        c2pa, target = _library(), io.BytesIO()
        try:
            if self._native is None:
                info = c2pa.C2paSignerInfo(
                    alg=self._algorithm, sign_cert=self._chain, private_key=self._key, ta_url=None
                )
                settings = c2pa.Settings.from_dict(_SETTINGS)
                self._native = c2pa.Context(settings), c2pa.Signer.from_info(info)
            context, signer = self._native
            with c2pa.Builder(self._manifest, context) as builder:
                builder.sign(signer, f"image/{form}", io.BytesIO(data), target)
        except c2pa.C2paError as error:
            words = " ".join(str(error).split())[:200]
            raise UserError(f"--c2pa, --c2pa-key: C2PA refuses them: {words}") from None
        return target.getvalue()


def _usable(key: bytes) -> tuple[bytes, bytes]:
    """C2PA's name of the algorithm, and the key as PKCS 8."""
    try:
        found = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise UserError("--c2pa-key: not a private key in PEM without a passphrase") from None
    if isinstance(found, ed25519.Ed25519PrivateKey):
        name = b"ed25519"
    elif isinstance(found, ec.EllipticCurvePrivateKey) and found.key_size in (256, 384, 521):
        name = {256: b"es256", 384: b"es384", 521: b"es512"}[found.key_size]
    else:
        raise UserError("--c2pa-key: neither on a NIST curve nor Ed25519")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return name, found.private_bytes(pem, form, serialization.NoEncryption())


def credentials_fault(data: bytes, source_type: str, training: str | None) -> str | None:
    """What is wrong with the Content Credentials of a picture, hashes and signature; None if
    nothing. That nobody vouches for the certificate is not: whom to trust is for the reader to say.

    Raises:
        UserError: the extra is not installed.
    """
    c2pa = _library()
    form = "jpeg" if data[:2] == b"\xff\xd8" else "png" if data[:4] == b"\x89PNG" else "webp"
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))
        with c2pa.Reader(f"image/{form}", io.BytesIO(data), context=context) as reader:
            told = json.loads(reader.json())
    except c2pa.C2paError:
        return "its Content Credentials cannot be read"
    if told.get("validation_state") not in ("Valid", "Trusted"):
        return "its Content Credentials do not hold: they are not those that were signed for it"
    (manifest,) = told["manifests"].values() if len(told["manifests"]) == 1 else ({},)
    said = {item["label"]: item["data"] for item in manifest.get("assertions", ())}
    names = [item.get("name") for item in manifest.get("claim_generator_info", ())]
    expected = assertions(source_type, training)
    if not manifest.keys() <= _CLAIM or said != expected or names != [_GENERATOR]:
        return "its Content Credentials say more than they may, or less than they must"
    return None
