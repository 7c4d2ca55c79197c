"""The review page: a person looks over doubtful photographs in a browser, on the owner's machine.

Verdicts are appended to a CSV as they are given, so that nothing is lost when the page, the server
or the machine goes away; it is what ``--verdicts`` reads. A later line counts, and an empty verdict
takes the earlier one back. Originals go to a browser on this machine alone: the server listens on
loopback, wants a token that only the printed address has, and answers no other site.
"""

import csv
import fcntl
import hmac
import io
import json
import os
import re
import secrets
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import ImageError, decode
from ppfr_ops.review.verdicts import digest_of, read_verdicts
from ppfr_ops.source.plan import Columns, Plan, plan, read_unit
from ppfr_ops.source.sums import marked, sum_of
from ppfr_ops.source.units import suffix
from ppfr_ops.store.storage import open_store

PAGE = Path(__file__).parent / "page.html"
FIELDS = ("source_id", "verdict", "boxes", "original", "reviewer", "time")
LONGEST_SIDE = 1600
"""Of the picture that the browser gets, px."""
_MOST_BYTES = 1 << 20
"""Of a request."""
_MARK = re.compile(r"[0-9a-f]{32}:[0-9a-f]{32}|[0-9a-f]{64}")
_ROWS = 16
"""That are read for one."""
_UNTOLD = ("source", "row", "other")
_IN_ARCHIVE = re.compile(r"(.+?\.(?:tar|tar\.gz|tgz|zip))(?:#|!/)", re.IGNORECASE | re.DOTALL)
"""What the source of a picture begins with that is in an archive."""
_TABLES = (".parquet", ".parq", ".pq")


@dataclass
class Item:
    """A photograph in the queue."""

    id: str
    reason: str
    score: float
    source: str
    row: int
    boxes: list[list[float]]
    """That are covered: x0, y0, x1, y1, and the score."""
    other: str = ""
    """Digest of a verdict that does not count, because it is of another picture."""
    faint: list[list[float]] = field(default_factory=list)
    """Places that may be heads, as ``queue.faint_places`` has them."""
    verdict: str = ""
    original: str = ""
    """Of the verdict, as ``Review`` has it."""
    covers: list[list[float]] | None = None
    """Boxes of the verdict ``cover``."""


def read_queue(
    path: str,
    boxes: Mapping[str, list[list[float]]],
    others: Mapping[str, str],
    faint: Mapping[str, list[list[float]]],
) -> list[Item]:
    """What ``--review-out`` wrote.

    Args:
        boxes, others, faint: by ``source_id``, as ``Item`` has them.

    Raises:
        UserError: it is something else.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                Item(
                    row["source_id"],
                    row["reason"],
                    float(row["score"]),
                    row["source"].removeprefix("'"),
                    int(row["row"]),
                    boxes.get(row["source_id"], []),
                    others.get(row["source_id"], ""),
                    faint.get(row["source_id"], []),
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"the queue is not what --review-out writes ({type(error).__name__})"
        ) from None


class Queue:
    """The photographs to look at, and the verdicts on them.

    Args:
        items: worst first.
        verdicts: the CSV that verdicts are appended to; what is in it already counts.
        image_column: of Parquet sources.

    Raises:
        UserError: the CSV cannot be read, or has no place for what a verdict says.
    """

    def __init__(self, items: Iterable[Item], verdicts: Path, image_column: str = "image") -> None:
        self.path = verdicts
        self.image_column = image_column
        self._lock = threading.Lock()
        self.items = {item.id: item for item in items}
        self.columns: Sequence[str] = FIELDS
        if verdicts.exists() and verdicts.stat().st_size:
            self._remember()
            with open(verdicts, newline="", encoding="utf-8") as file:
                self.columns = next(csv.reader(file))
            if not {*FIELDS[:4]} <= {*self.columns}:
                raise UserError(
                    "--verdicts: the file has no column original, which says of which pictures "
                    "its verdicts are: name a new file"
                )

    def _remember(self) -> None:
        said = read_verdicts(str(self.path))
        for item in self.items.values():
            review = said.get(item.id)
            if review is None or digest_of(review) == item.other:
                item.verdict, item.original, item.covers = "", "", None
            else:
                item.verdict, item.original = review.kind, review.original
                item.covers = [list(box) for box in review.boxes] or None

    def give(
        self,
        name: str,
        verdict: str,
        covers: Sequence[Sequence[float]],
        reviewer: str,
        original: str = "",
    ) -> None:
        """Note a verdict; it is on disk when this returns.

        Args:
            original: mark of the picture that was shown, as ``picture`` gives it. Without one
                nothing but ``drop`` can be said.

        Raises:
            ValueError: no such photograph, or no such verdict.
        """
        if name not in self.items or verdict not in ("ok", "drop", "cover", ""):
            raise ValueError("no such photograph or verdict")
        if not _MARK.fullmatch(original) and (original or verdict in ("ok", "cover")):
            raise ValueError("a verdict is of a picture that was seen")
        boxes = [[round(float(number), 1) for number in box] for box in covers]
        if any(len(box) != 4 or box[0] >= box[2] or box[1] >= box[3] for box in boxes):
            raise ValueError("boxes are x0, y0, x1, y1")
        if verdict == "cover" and not boxes:
            raise ValueError("cover needs a box")
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore")
        with self._lock:
            # Several people may have it open, each with a server of its own.
            descriptor = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "a", encoding="utf-8", newline="") as file:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # or two of them begin it with a header
                if os.fstat(descriptor).st_size == 0:
                    writer.writeheader()
                shown = json.dumps(boxes) if verdict == "cover" else ""
                time = datetime.now(UTC).isoformat(timespec="seconds")
                said = (name, verdict, shown, original, reviewer, time)
                writer.writerow(dict(zip(FIELDS, said, strict=True)))
                file.write(text.getvalue())
                file.flush()
                os.fsync(file.fileno())
            item = self.items[name]
            item.verdict, item.original = verdict, original
            item.covers = boxes if verdict == "cover" else None

    def listed(self) -> list[dict[str, Any]]:
        """What the page is told: no path."""
        if self.path.exists():
            with self._lock:
                self._remember()
        return [
            {key: value for key, value in asdict(item).items() if key not in _UNTOLD}
            for item in self.items.values()
        ]

    def picture(self, name: str) -> bytes:
        """A photograph as JPEG, upright, at most ``LONGEST_SIDE``; before it a line with its size
        and mark, which are the headers ``X-Size`` and ``X-Original`` of the answer.

        Raises:
            KeyError: no such photograph.
            OSError, ValueError: it cannot be read.
        """
        item = self.items[name]
        stored = read_original(item.source, item.row, self.image_column)
        try:
            pixels = decode(stored)
        except ImageError as error:
            raise ValueError(error.code) from None
        shown = Image.fromarray(pixels)
        shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        data = io.BytesIO()
        shown.save(data, "JPEG", quality=88)
        height, width = pixels.shape[:2]
        return f"{width}x{height} {marked(sum_of(stored))}\n".encode() + data.getvalue()


def read_original(source: str, row: int, image_column: str) -> bytes:
    """The encoded picture of a row, as ``source.plan.sources`` names it.

    Raises:
        OSError, ValueError: it is not there any more.
    """
    archive = _IN_ARCHIVE.match(source)
    path = archive[1] if archive else source
    try:
        planned = _rows_of(path, image_column if suffix(path) in _TABLES else None)
    except UserError:
        if archive or suffix(path) in _TABLES:
            raise ValueError("not in that file") from None
        # No file of rows, and of no picture's name.
        fs, root = open_store(path)
        return bytes(fs.cat_file(root))
    unit = planned.units[max(0, bisect_right(planned.units, row, key=lambda one: one.start) - 1)]
    rows = read_unit(planned, unit)["image"].to_pylist() if 0 <= row < unit.stop else []
    found = rows[row - unit.start] if rows else None
    if not isinstance(found, bytes):
        raise ValueError("no picture in that row")
    return found


@lru_cache(maxsize=4)
def _rows_of(path: str, image_column: str | None) -> Plan:
    """A file, in units that are read for one of their rows."""
    return plan(path, Columns(image=image_column), unit_rows=_ROWS)


def serve(queue: Queue, port: int = 0, reviewer: str = "owner") -> tuple[ThreadingHTTPServer, str]:
    """A server on loopback, not yet running, and the address to open.

    Args:
        port: 0: any that is free.
        reviewer: a role that verdicts bear, no name.
    """
    token = secrets.token_urlsafe(24)

    class Handler(_Handler):
        pass

    Handler.queue, Handler.token, Handler.reviewer = queue, token, reviewer
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    host = f"127.0.0.1:{server.server_address[1]}"
    Handler.hosts = (host, host.replace("127.0.0.1", "localhost"))
    return server, f"http://{host}/?token={token}"


class _Handler(BaseHTTPRequestHandler):
    queue: Queue
    token: str
    reviewer: str
    hosts: tuple[str, ...] = ()
    timeout = 30

    def do_GET(self) -> None:
        parts, query = self._asked()
        if parts is None:
            return
        try:
            if parts == "/":
                self._answer(200, PAGE.read_bytes(), "text/html; charset=utf-8")
            elif parts == "/items":
                self._answer(200, json.dumps(self.queue.listed()).encode(), "application/json")
            elif parts == "/picture":
                told, _, data = self.queue.picture(query.get("id", "")).partition(b"\n")
                self._answer(200, data, "image/jpeg", told.decode())
            else:
                self._answer(404, b"")
        except (KeyError, OSError, ValueError):
            self._answer(404, b"")

    def do_POST(self) -> None:
        parts, _ = self._asked()
        if parts is None:
            return
        origin = self.headers.get("Origin", "")
        length = int(self.headers.get("Content-Length") or 0)
        if parts != "/verdict" or urlsplit(origin).netloc not in self.hosts:
            self._answer(403, b"")
        elif length > _MOST_BYTES:
            self._answer(413, b"")
        else:
            try:
                given = json.loads(self.rfile.read(length))
                boxes = given.get("boxes") or []
                name, verdict = str(given["id"]), str(given["verdict"])
                original = str(given.get("original") or "")
                self.queue.give(name, verdict, boxes, self.reviewer, original)
                self._answer(204, b"")
            except (KeyError, TypeError, ValueError, AttributeError):
                self._answer(400, b"")

    def _asked(self) -> tuple[str | None, dict[str, str]]:
        """Path and query of a request that may be answered; None: it was refused."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        given = self.headers.get("X-Token") or query.get("token", "")
        # A name of somebody else's that leads here (DNS rebinding) is another host.
        if self.headers.get("Host") not in self.hosts or not hmac.compare_digest(
            given.encode(), self.token.encode()
        ):
            self._answer(403, b"")
            return None, {}
        return parts.path, query

    def _answer(self, status: int, data: bytes, kind: str = "text/plain", told: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; img-src blob:; script-src 'unsafe-inline'; "
            "style-src 'unsafe-inline'; connect-src 'self'",
        )
        if told:
            for name, value in zip(("X-Size", "X-Original"), told.split(), strict=True):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: an address holds the token."""
