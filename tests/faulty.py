"""A proxy before an S3 endpoint that fails one request in so many, as stores and networks do."""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

FAULTS = ("500", "503", "reset", "stall")
STALL_SECONDS = 3.0


class FaultyProxy:
    """A context manager.

    Args:
        target: port of the real endpoint on loopback.
        every: one request in so many fails, drawn at random; 0: none.
        access_key: any other is refused as S3 refuses it; None: let everybody in.
        only: the fault that is made; None: each in turn.
        where: only requests fail whose path has this in it.
        drop: a header that does not get through, as with stores that do not know it.
    """

    def __init__(
        self,
        target: int,
        every: int = 0,
        access_key: str | None = None,
        only: str | None = None,
        where: str = "",
        drop: str = "",
        seed: int = 1,
    ) -> None:
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.asked: list[str] = []
        """Method and path of every request."""
        rng, lock = random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _fault(self) -> str | None:
                with lock:
                    proxy.requests += 1
                    proxy.asked.append(f"{self.command} {self.path}")
                    if not every or where not in self.path or rng.randrange(every):
                        return None
                    fault = only or FAULTS[proxy.faults.total() % len(FAULTS)]
                    proxy.faults[fault] += 1
                    return fault

            def _answer(self) -> None:
                body = self._body()
                given = self.headers.get("Authorization", "")
                if access_key is not None and f"Credential={access_key}/" not in given:
                    return self._refuse(403, "InvalidAccessKeyId")
                fault = self._fault()
                if fault == "500":
                    return self._refuse(500, "InternalError")
                if fault == "503":
                    return self._refuse(503, "SlowDown")
                if fault == "stall":
                    time.sleep(STALL_SECONDS)
                    return self._cut()
                upstream = http.client.HTTPConnection("127.0.0.1", target, timeout=30)
                headers = dict(self.headers.items())
                headers.pop("Transfer-Encoding", None)
                headers = {n: v for n, v in headers.items() if n.lower() != drop.lower()}
                headers["Content-Length"] = str(len(body))
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                data = answer.read()
                upstream.close()
                self.send_response(answer.status)
                length = answer.getheader("Content-Length", str(len(data)))
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if fault == "reset":  # the request was done, its answer is lost half way
                    self.wfile.write(data[: len(data) // 2])
                    return self._cut()
                if self.command != "HEAD":
                    self.wfile.write(data)
                return None

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return b"".join(parts)

            def _refuse(self, status: int, code: str) -> None:
                body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def _cut(self) -> None:
                self.wfile.flush()
                linger = struct.pack("ii", 1, 0)  # closing sends RST
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that hung up

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
