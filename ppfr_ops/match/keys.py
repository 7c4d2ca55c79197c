"""Keys and certificates: who holds what, and files that only their owner can read.

The client holds two BFV secret keys and a certificate; the server a certificate and the key under
which its gallery is stored. No secret key of the client ever leaves it.
"""

import hashlib
import ipaddress
import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tenseal.sealapi as seal
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .bfv import DEGREE, Buffer, ParameterError, Ring, choices_ring, public_bytes, scores_ring
from .errors import MatchError

_MAGIC = b"PPFRKEY1"
_SECRET_BYTES = 8 * 3 * DEGREE
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


@dataclass(frozen=True, repr=False)
class ClientKeys:
    """A licensee's BFV keys, one pair a ring."""

    scores: seal.SecretKey
    choices: seal.SecretKey
    public: bytes
    """Both public keys as they travel, scores first."""

    @classmethod
    def generate(cls) -> "ClientKeys":
        pairs = [_pair(scores_ring()), _pair(choices_ring())]
        return cls(pairs[0][0], pairs[1][0], pairs[0][1] + pairs[1][1])

    def save(self, path: Path) -> None:
        """Raises MatchError: the file exists."""
        secret = scores_ring().save_secret(self.scores) + choices_ring().save_secret(self.choices)
        write_private(path, _MAGIC + secret + self.public)

    @classmethod
    def load(cls, path: Path) -> "ClientKeys":
        """Raises MatchError: not a key file of this version."""
        data = path.read_bytes()
        if len(data) != len(_MAGIC) + 2 * _SECRET_BYTES + 2 * public_bytes():
            raise MatchError(f"{path.name} is not a key file of this version")
        body = data[len(_MAGIC) :]
        try:
            return cls(
                scores_ring().load_secret(body[:_SECRET_BYTES]),
                choices_ring().load_secret(body[_SECRET_BYTES : 2 * _SECRET_BYTES]),
                body[2 * _SECRET_BYTES :],
            )
        except ParameterError:
            raise MatchError(f"{path.name} is not a key file of this version") from None


@dataclass(frozen=True, repr=False)
class PublicKeys:
    """What the server gets of the client's keys."""

    scores: seal.PublicKey
    choices: seal.PublicKey

    @classmethod
    def read(cls, data: Buffer) -> "PublicKeys":
        """Raises ParameterError: wrong length, a word out of range, or not random."""
        size = public_bytes()
        if len(data) != 2 * size:
            raise ParameterError("public keys of a wrong size")
        view = memoryview(data)
        return cls(scores_ring().load_public(view[:size]), choices_ring().load_public(view[size:]))


def _pair(ring: Ring) -> tuple[seal.SecretKey, bytes]:
    generator, public = seal.KeyGenerator(ring.context), seal.PublicKey()
    generator.create_public_key(public)
    return generator.secret_key(), ring.save_public(public)


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
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
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
    """``bfv.key``, ``client.key``, ``client.crt``, ``token``, and the server's ``server.crt``."""

    path: Path

    @classmethod
    def create(cls, path: Path, name: str) -> "ClientFolder":
        """Raises MatchError: there are keys already."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        ClientKeys.generate().save(path / "bfv.key")
        private, certificate = make_certificate(name, [], (_CLIENT,))
        write_private(path / "client.key", private)
        (path / "client.crt").write_bytes(certificate)
        return cls(path)

    def keys(self) -> ClientKeys:
        """Raises MatchError: no keys there."""
        if not (self.path / "bfv.key").is_file():
            raise MatchError(f"no bfv.key in {self.path.name}/: make one with ppfr match keygen")
        return ClientKeys.load(self.path / "bfv.key")

    def token(self) -> bytes:
        """The token, or zeros where the certificate is enough."""
        file = self.path / "token"
        return bytes.fromhex(file.read_text()) if file.is_file() else bytes(TOKEN_BYTES)


class PartyCertificates:
    """``.config`` in a folder: what MPyC's TLS looks for there."""

    @staticmethod
    def make(folder: Path, index: int) -> None:
        """A certificate of party ``index`` by the name that MPyC asks for, if there is none."""
        place = folder / ".config"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (place / f"party_{index}.crt").exists():
            uses = (_SERVER, _CLIENT)
            private, certificate = make_certificate(f"MPyC party {index}", [], uses)
            write_private(place / f"party_{index}.key", private)
            (place / f"party_{index}.crt").write_bytes(certificate)

    @staticmethod
    def exchange(folders: list[Path]) -> None:
        """Everybody pins everybody's certificate."""
        found = [path for folder in folders for path in folder.glob(".config/party_*.crt")]
        everyone = b"".join(path.read_bytes() for path in sorted(found))
        for folder in folders:
            if (folder / ".config").is_dir():
                (folder / ".config" / "mpyc_ca.crt").write_bytes(everyone)
