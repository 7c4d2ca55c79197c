"""Certificates for tests, as C2PA wants them: a root, and a signer under it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def chain(folder: Path, key: Key | None = None) -> tuple[Path, Path]:
    """Certificates, the signer's first, and the signer's key; PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    root = ec.generate_private_key(ec.SECP256R1())
    first = _certificate("Example root", root, "Example root", root, None)
    second = _certificate("Example signer", key, "Example root", root, first)
    pem = serialization.Encoding.PEM
    certificates, private = folder / "chain.pem", folder / "signer.key"
    certificates.write_bytes(second.public_bytes(pem) + first.public_bytes(pem))
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, form, none))
    private.chmod(0o600)
    return certificates, private


def _named(name: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    name: str, key: Key, by: str, signer: Key, above: x509.Certificate | None
) -> x509.Certificate:
    now = datetime.now(UTC)
    public, root = key.public_key(), above is None
    usage = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(by))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=root, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not root, key_cert_sign=root, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not root:
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        made = made.add_extension(use, critical=True)
    return made.sign(signer, hashes.SHA256())
