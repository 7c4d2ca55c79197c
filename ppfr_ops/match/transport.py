"""Sockets and TLS around a session: the only part of this room that touches the network."""

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from .client import Outcome, ask
from .errors import MatchError, Reason
from .keys import ClientFolder, OwnerFolder
from .packing import Integers
from .server import Matcher, serve_session
from .three_party import CLIENT, run_party
from .wire import HEADER, HELLO_BYTES, Link

TIMEOUT = 120.0
"""Seconds that a peer may let the other wait for the next byte."""
GREETING_SECONDS = 10.0
"""Seconds that a stranger gets for the handshake, and for the first frame, which says who it is;
from then on SESSION_SECONDS count."""
SESSION_SECONDS = 900.0
STARTING = 5.0
"""Seconds that a query goes on knocking where nobody listens yet."""
MAX_SESSIONS = 8
"""Sessions at a time; each may hold one query in memory."""
_PIECE = 1 << 20


def link_over(
    connection: socket.socket,
    timeout: float = TIMEOUT,
    seconds: float = SESSION_SECONDS,
    greeting: float | None = None,
) -> Link:
    """A link over a connected socket that ends, with OSError, after ``seconds``.

    Args:
        greeting: seconds until all of a HELLO must have come; None: as ``seconds``.
    """
    began = time.monotonic()
    heard = 0

    def read(buffer: memoryview) -> None:
        nonlocal heard
        while buffer:
            stranger = greeting is not None and heard < HEADER.size + HELLO_BYTES
            most = greeting if stranger and greeting is not None else seconds
            left = began + most - time.monotonic()
            connection.settimeout(max(0.001, min(timeout, left)))
            count = connection.recv_into(buffer, min(len(buffer), _PIECE))
            if not count:
                raise EOFError("the other side closed the connection")
            heard += count
            buffer = buffer[count:]

    return Link(read, connection.sendall)


def server_context(owner: OwnerFolder) -> ssl.SSLContext:
    """TLS 1.3; a client's certificate is asked for and, if one comes, has to be an admitted one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(owner.path / "server.crt", owner.path / "server.key")
    if (owner.path / "clients.crt").exists():
        context.load_verify_locations(owner.path / "clients.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(folder: ClientFolder) -> ssl.SSLContext:
    """TLS 1.3; the server has to show the pinned certificate for the host that was asked for.

    Raises:
        MatchError: no ``server.crt`` in the folder.
    """
    pinned = folder.path / "server.crt"
    if not pinned.is_file():
        raise MatchError(f"no server.crt in {folder.path.name}/: the owner of the gallery has it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(pinned)
    if (folder.path / "client.crt").exists():
        context.load_cert_chain(folder.path / "client.crt", folder.path / "client.key")
    return context


class Server:
    """Accepts connections, a thread a session, a limited number of them."""

    def __init__(
        self,
        matcher: Matcher,
        owner: OwnerFolder,
        address: tuple[str, int],
        timeout: float = TIMEOUT,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._matcher, self._clients = matcher, owner.clients()
        self._context = server_context(owner)
        self._timeout, self._log = timeout, log
        self._slots = threading.BoundedSemaphore(MAX_SESSIONS)
        self._socket = socket.create_server(address, backlog=MAX_SESSIONS)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]

    def run(self) -> None:
        """Serve until :meth:`close`."""
        while True:
            try:
                raw, _ = self._socket.accept()
            except OSError:
                return
            self._slots.acquire()  # no thread, and no memory, beyond the limit
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            raw.settimeout(min(self._timeout, GREETING_SECONDS))
            with self._context.wrap_socket(raw, server_side=True) as connection:
                shown = connection.getpeercert(binary_form=True)
                certificate = hashlib.sha256(shown).hexdigest() if shown else None
                link = link_over(connection, self._timeout, greeting=GREETING_SECONDS)
                try:
                    serve_session(link, self._matcher, self._clients, certificate)
                except (OSError, EOFError):
                    raise
                except Exception as error:
                    # whatever went wrong inside: the client learns that, and nothing about it
                    self._log(f"session failed: {type(error).__name__}")
                    link.refuse(Reason.INTERNAL)
        except (OSError, EOFError):
            pass  # the peer went away, or never spoke TLS
        finally:
            raw.close()
            self._slots.release()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def query(
    address: tuple[str, int],
    folder: ClientFolder,
    template: Integers,
    name: str | None = None,
    recognizer: str | None = None,
    parties: list[str] | None = None,
    timeout: float = TIMEOUT,
) -> Outcome:
    """Ask a server; see :func:`ppfr_ops.match.client.ask`.

    Args:
        parties: ``host:port`` of client, server and helper, for the three-party form.

    Raises:
        MatchError: refused, nobody there, not the pinned server, or it went away.
    """
    context, keys = client_context(folder), folder.keys()
    party = partial(run_party, CLIENT, parties, folder.path) if parties else None
    where = f"{address[0]}:{address[1]}"
    try:
        with (
            _connect(address, timeout) as raw,
            context.wrap_socket(raw, server_hostname=address[0]) as connection,
        ):
            link, token = link_over(connection, timeout), folder.token()
            return ask(link, keys, template, name, token, recognizer, party)
    except ssl.SSLCertVerificationError:
        raise MatchError(f"{where} did not show the certificate in server.crt") from None
    except (OSError, EOFError) as error:
        raise MatchError(f"no answer from {where} ({type(error).__name__})") from None


def _connect(address: tuple[str, int], timeout: float) -> socket.socket:
    """A connection; a server that was started a moment ago is waited for."""
    refused = retry_if_exception_type(ConnectionRefusedError)
    attempts = Retrying(
        retry=refused, stop=stop_after_delay(STARTING), wait=wait_fixed(0.2), reraise=True
    )
    return attempts(socket.create_connection, address, timeout)


def parse_address(text: str) -> tuple[str, int]:
    """``host:port``. Raises MatchError: not of that form."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        raise MatchError(f"{text!r}: expected HOST:PORT")
    return host.strip("[]"), int(port)


def gallery_path(folder: Path) -> Path:
    """The file of a gallery's folder."""
    return folder / "gallery.ppfr"


def parse_parties(text: str) -> list[str]:
    """``host:port,host:port,host:port``. Raises MatchError: not three addresses."""
    parties = [part.strip() for part in text.split(",")]
    for part in parties:
        parse_address(part)
    if len(parties) != 3:
        raise MatchError("three parties: client, server and helper, HOST:PORT,HOST:PORT,HOST:PORT")
    return parties
