"""Keys and certificates: who holds what, and files that only their owner can read.

The client holds a certificate or a token; the server a certificate and the key under which its
gallery is stored. The keys that encrypt a probe are made for a query and gone with it.
"""

import hashlib
import ipaddress
import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import MatchError

GALLERY_KEY_BYTES = 32
TOKEN_BYTES = 32
CERTIFICATE_DAYS = 365


def write_private(path: Path, data: bytes) -> None:
    """Write a new file with mode 0600.

    Raises:
        MatchError: the file exists.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise MatchError(f"{path.name} is there already; keys are never overwritten") from None
    with open(file, "wb") as stream:
        stream.write(data)


# -- certificates and tokens ---------------------------------------------------------------------


_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def make_certificate(
    name: str, hosts: list[str], uses: tuple[x509.ObjectIdentifier, ...]
) -> tuple[bytes, bytes]:
    """A self-signed certificate, to be pinned by the other side.

    Returns:
        Private key and certificate, PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    )
    if hosts:
        alternatives = x509.SubjectAlternativeName([_host(host) for host in hosts])
        builder = builder.add_extension(alternatives, critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def fingerprint(pem: bytes) -> str:
    """sha256 of a certificate, hex. Raises MatchError: not a PEM certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise MatchError("not a certificate in PEM form") from None
    return certificate.fingerprint(hashes.SHA256()).hex()


# -- folders -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnerFolder:
    """``gallery.key``, ``server.key``, ``server.crt``, ``clients.json``, ``clients.crt``."""

    path: Path

    @classmethod
    def create(cls, path: Path, hosts: list[str]) -> "OwnerFolder":
        """Raises MatchError: there are keys already."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path / "gallery.key", secrets.token_bytes(GALLERY_KEY_BYTES))
        private, certificate = make_certificate("ppfr match server", hosts, (_SERVER,))
        write_private(path / "server.key", private)
        (path / "server.crt").write_bytes(certificate)
        (path / "clients.json").write_text("{}\n")
        return cls(path)

    def gallery_key(self) -> bytes:
        """Raises MatchError: no such key."""
        file = self.path / "gallery.key"
        if not file.is_file() or file.stat().st_size != GALLERY_KEY_BYTES:
            raise MatchError(f"no key of a gallery in {self.path.name}/")
        return file.read_bytes()

    def clients(self) -> dict[str, dict[str, str]]:
        """Name to ``{"certificate": fingerprint}`` or ``{"token": sha256}``."""
        try:
            return dict(json.loads((self.path / "clients.json").read_text()))
        except (OSError, ValueError):
            raise MatchError(f"no readable clients.json in {self.path.name}/") from None

    def admit(
        self, name: str, certificate: bytes | None = None, token: bytes | None = None
    ) -> None:
        """Let a client in, by certificate or token. Raises MatchError: the name is taken."""
        clients = self.clients()
        if name in clients:
            raise MatchError(f"there is a client {name} already")
        clients[name] = {}
        if certificate is not None:
            clients[name]["certificate"] = fingerprint(certificate)
            with open(self.path / "clients.crt", "ab") as file:
                file.write(certificate)
        if token is not None:
            clients[name]["token"] = hashlib.sha256(token).hexdigest()
        (self.path / "clients.json").write_text(json.dumps(clients, indent=1) + "\n")


@dataclass(frozen=True)
class ClientFolder:
    """``client.key``, ``client.crt``, ``token``, and the server's ``server.crt``."""

    path: Path

    @classmethod
    def create(cls, path: Path, name: str) -> "ClientFolder":
        """Raises MatchError: there are keys already."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        private, certificate = make_certificate(name, [], (_CLIENT,))
        write_private(path / "client.key", private)
        (path / "client.crt").write_bytes(certificate)
        return cls(path)

    def token(self) -> bytes:
        """The token, or zeros where the certificate is enough."""
        file = self.path / "token"
        return bytes.fromhex(file.read_text()) if file.is_file() else bytes(TOKEN_BYTES)
