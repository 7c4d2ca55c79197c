"""Sockets and TLS around a session: the only part of this room that touches the network."""

import contextlib
import hashlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from .client import MOST_BYTES, Outcome, ask
from .errors import MatchError, Reason, Refused
from .keys import ClientFolder, OwnerFolder
from .packing import Integers
from .server import Matcher, serve_session
from .wire import Link

TIMEOUT = 120.0
"""Seconds that a peer may let the other wait for the next byte."""
GREETING_SECONDS = 10.0
"""Seconds that a stranger gets for the handshake and for saying who it is."""
SESSION_SECONDS = 900.0
STARTING = 5.0
"""Seconds that a query goes on knocking where nobody listens yet."""
MAX_STRANGERS = 64
"""Connections that have not shown yet who they are; the oldest makes way for a new one."""
MAX_SESSIONS = 8
"""Sessions at a time; each may hold one query in memory."""
SESSIONS_A_CLIENT = 2
_PIECE = 1 << 20


def link_over(
    connection: socket.socket, timeout: float = TIMEOUT, seconds: float = SESSION_SECONDS
) -> Link:
    """A link over a connected socket that ends, with OSError, after ``seconds``."""
    end = time.monotonic() + seconds

    def wait() -> None:
        connection.settimeout(max(0.001, min(timeout, end - time.monotonic())))

    def read(buffer: memoryview) -> None:
        while buffer:
            wait()
            count = connection.recv_into(buffer, min(len(buffer), _PIECE))
            if not count:
                raise EOFError("the other side closed the connection")
            buffer = buffer[count:]

    def write(data: bytes) -> None:
        left = memoryview(data)
        while left:
            wait()
            left = left[connection.send(left[:_PIECE]) :]

    return Link(read, write)


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
    """Accepts connections, a thread each; computes for those who have shown who they are."""

    def __init__(
        self,
        matcher: Matcher,
        owner: OwnerFolder,
        address: tuple[str, int],
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._matcher, self._clients, self._log = matcher, owner.clients(), log
        self._context = server_context(owner)
        self._lock = threading.Lock()
        self._strangers: dict[ssl.SSLSocket, float] = {}
        self._sessions: Counter[str] = Counter()
        self._slots = threading.BoundedSemaphore(MAX_SESSIONS)
        self._socket = socket.create_server(address, backlog=MAX_STRANGERS)
        self._socket.settimeout(1.0)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]

    def run(self) -> None:
        """Serve until :meth:`close`."""
        while True:
            try:
                raw, _ = self._socket.accept()
                raw.settimeout(GREETING_SECONDS)
                connection = self._context.wrap_socket(
                    raw, server_side=True, do_handshake_on_connect=False
                )
            except TimeoutError:
                self._send_away(MAX_STRANGERS)
                continue
            except OSError:
                if self._socket.fileno() < 0:
                    return
                continue  # gone before it was wrapped
            self._send_away(MAX_STRANGERS - 1)
            with self._lock:
                self._strangers[connection] = time.monotonic()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _send_away(self, most: int) -> None:
        """Hang up on strangers whose time is over, and on the oldest if there are too many."""
        late = time.monotonic() - GREETING_SECONDS
        with self._lock:
            oldest = list(self._strangers)[: max(0, len(self._strangers) - most)]
            for connection in {*oldest, *(c for c, at in self._strangers.items() if at < late)}:
                del self._strangers[connection]
                with contextlib.suppress(OSError):  # below TLS: its thread may be reading
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _place(self, connection: ssl.SSLSocket, client: str) -> Iterator[None]:
        """A place for somebody who has shown who it is."""
        with self._lock:
            self._strangers.pop(connection, None)
            if self._sessions[client] >= SESSIONS_A_CLIENT:
                raise Refused(Reason.BUSY)
            self._sessions[client] += 1
        try:
            with self._slots:
                yield
        finally:
            with self._lock:
                self._sessions[client] -= 1

    def _serve(self, connection: ssl.SSLSocket) -> None:
        try:
            connection.do_handshake()
            shown = connection.getpeercert(binary_form=True)
            certificate = hashlib.sha256(shown).hexdigest() if shown else None
            link, place = link_over(connection), partial(self._place, connection)
            try:
                serve_session(link, self._matcher, self._clients, certificate, place)
            except (OSError, EOFError):
                raise
            except Exception as error:
                # whatever went wrong inside: the client learns that, and nothing about it
                told = f" ({error})" if isinstance(error, MatchError) else ""
                self._log(f"session failed: {type(error).__name__}{told}")
                link.refuse(Reason.INTERNAL)
        except (OSError, EOFError, ValueError):
            pass  # the peer went away, was sent away, or never spoke TLS
        finally:
            with self._lock:
                self._strangers.pop(connection, None)
            connection.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def query(
    address: tuple[str, int],
    folder: ClientFolder,
    template: Integers,
    name: str | None = None,
    recognizer: str | None = None,
    most_bytes: int = MOST_BYTES,
    timeout: float = TIMEOUT,
) -> Outcome:
    """Ask a server; see :func:`ppfr_ops.match.client.ask`.

    Raises:
        MatchError: refused, nobody there, not the pinned server, or it went away.
    """
    context = client_context(folder)
    where = f"{address[0]}:{address[1]}"
    try:
        with (
            _connect(address, timeout) as raw,
            context.wrap_socket(raw, server_hostname=address[0]) as connection,
        ):
            link, token = link_over(connection, timeout), folder.token()
            return ask(link, template, name, token, recognizer, most_bytes)
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
