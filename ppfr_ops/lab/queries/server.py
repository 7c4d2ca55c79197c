"""A reference server of a recogniser: for tests, demonstrations, and licensees who want to offer
their own. Standard library; a thread a connection. It keeps nothing of what it is asked.
"""

import base64
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from ppfr_ops.contracts.endpoint import (
    LARGEST_REQUEST,
    NUMBER_HEADER,
    EndpointInfo,
    Problem,
    ScoreReply,
    ScoreRequest,
    TemplateReply,
    TemplateRequest,
)
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.codec import ImageError, decode
from ppfr_ops.recognizers import Recognizer

IDLE_SECONDS = 30.0
"""After which a connection that sends nothing is closed."""


class _Turned(Exception):
    """A request that is turned away."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class RecognizerServer:
    """Serves a recogniser by ``schemas/fr-endpoint.v1.openapi.json``.

    Args:
        address: host and port; port 0 takes a free one.
        scores_only: give scores of pairs, never a template.
        token: that a client has to bear.
        anywhere: listen on an address that is not this machine's own.

    Raises:
        UserError: the address is not loopback, or cannot be listened on.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        address: tuple[str, int] = ("127.0.0.1", 0),
        scores_only: bool = False,
        token: str | None = None,
        anywhere: bool = False,
    ) -> None:
        if not anywhere and not _loopback(address[0]):
            raise UserError("listening beyond this machine: say --anywhere, and use a --token-file")
        self.recognizer, self.scores_only, self.token = recognizer, scores_only, token
        self.received: list[int | None] = []
        """Numbers of the queries that arrived, by the account of anyone who asked."""
        self._counting, self._computing = threading.Lock(), threading.Lock()
        shades = np.arange(FACE_SIZE, dtype=np.uint8)[None, :, None, None]
        nobody = np.broadcast_to(shades, (1, FACE_SIZE, FACE_SIZE, 3))
        self.dimensions = int(recognizer.embed(nobody).shape[1])
        try:
            self._server = ThreadingHTTPServer(address, _handler(self))
        except OSError as error:
            raise UserError(f"cannot listen there ({type(error).__name__})") from None
        self._server.daemon_threads = True
        self.address: tuple[str, int] = self._server.server_address[:2]  # type: ignore[assignment]

    def run(self) -> None:
        """Serve until :meth:`close`."""
        self._server.serve_forever(0.1)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def info(self) -> EndpointInfo:
        known = None if self.scores_only else self.dimensions
        answers: list[Any] = ["score"] if self.scores_only else ["template", "score"]
        return EndpointInfo(dimensions=known, answers=answers, queries=len(self.received))

    def answer(self, path: str, body: bytes, number: int | None) -> BaseModel:
        """A query: counted first, whatever comes of it."""
        if path not in ("/v1/template", "/v1/score"):
            raise _Turned(404, "nothing is answered here")
        with self._counting:
            self.received.append(number)
        if path == "/v1/template":
            if self.scores_only:
                raise _Turned(404, "scores only")
            picture = _read(TemplateRequest, body).picture
            return TemplateReply(template=self._embed([picture])[0].astype(float).tolist())
        pair = _read(ScoreRequest, body)
        a, b = self._embed([pair.a, pair.b]).astype(np.float64)
        return ScoreReply(score=float(a @ b))

    def _embed(self, pictures: list[str]) -> Any:
        faces = np.stack([_face(picture) for picture in pictures])
        with self._computing:
            try:
                return self.recognizer.embed(faces)
            except UserError:
                raise _Turned(400, "the recogniser gives no template of this picture") from None


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _face(text: str) -> Faces:
    try:
        return decode(base64.b64decode(text, validate=True), size=(FACE_SIZE, FACE_SIZE))
    except (ImageError, ValueError):
        raise _Turned(400, f"no picture of {FACE_SIZE} x {FACE_SIZE} px") from None


def _read(model: type[Any], body: bytes) -> Any:
    try:
        return model.model_validate_json(body)
    except ValidationError:
        raise _Turned(400, "not of the form that schemas/ has") from None


def _handler(server: RecognizerServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_SECONDS
        server_version, sys_version = "ppfr", ""
        wbufsize = -1  # head and body of a reply in one packet, or Nagle's delay is paid

        def do_GET(self) -> None:
            self._reply(lambda: self._get())

        def do_POST(self) -> None:
            self._reply(lambda: self._post())

        def _get(self) -> BaseModel:
            if self.path != "/v1/info":
                raise _Turned(404, "nothing is answered here")
            return server.info()

        def _post(self) -> BaseModel:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > LARGEST_REQUEST:
                self.close_connection = True
                # read, or the reply is lost with the connection
                left = min(int(length), 4 * LARGEST_REQUEST) if length.isdecimal() else 0
                while left > 0 and (piece := self.rfile.read(min(left, 1 << 16))):
                    left -= len(piece)
                raise _Turned(413, "too large, or of unknown length")
            body = self.rfile.read(int(length))
            number = self.headers.get(NUMBER_HEADER, "")
            return server.answer(self.path, body, int(number) if number.isdecimal() else None)

        def _reply(self, work: Any) -> None:
            try:
                self._admit()
                status, told = 200, work()
            except _Turned as turned:
                status, told = turned.status, Problem(error=str(turned))
            except (OSError, TimeoutError):
                raise
            except Exception:
                status, told = 503, Problem(error="failed")
            data = json.dumps(told.model_dump()).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        def _admit(self) -> None:
            if server.token is None:
                return
            shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(shown.encode(), server.token.encode()):
                self.close_connection = True
                raise _Turned(401, "the token is missing or wrong")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a log would say who asked when."""

    return Handler
