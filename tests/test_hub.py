"""The Hugging Face Hub as a store: its own client, and a server that answers as the Hub does."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ppfr_ops.errors import UserError
from ppfr_ops.source.plan import Columns, plan, read_unit

pytest.importorskip("huggingface_hub")

_PLACE = re.compile(r"/api/datasets/u/faces(?:/(?:revision|tree)/([^/]+)(?:/(.*))?)?")
_FILE = re.compile(r"/datasets/u/faces/resolve/([^/]+)/(.*)")


class Hub(ThreadingHTTPServer):
    """A dataset ``u/faces`` whose revisions are the folders below ``root``."""

    root: Path
    failures = 0
    """Requests for files that are answered by 503."""
    token: str | None = None


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._answer(
                401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"}
            )
        if match := _FILE.fullmatch(path):
            return self._file(self.server.root / match[1] / match[2])
        match = _PLACE.fullmatch(path)
        revision = self.server.root / ((match and match[1]) or "main")
        if match is None or not revision.is_dir():
            return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if "/tree/" not in path:
            told = {"id": "u/faces", "sha": "0" * 40, "siblings": []}
            return self._answer(200, json.dumps(told).encode())
        folder = revision / (match[2] or "")
        if not folder.is_dir():
            return self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        every = folder.rglob("*") if "recursive=true" in self.path.lower() else folder.iterdir()
        entries = [
            {
                "type": "directory" if each.is_dir() else "file",
                "path": str(each.relative_to(revision)),
                "size": 0 if each.is_dir() else each.stat().st_size,
                "oid": "" if each.is_dir() else hashlib.sha1(each.read_bytes()).hexdigest(),
            }
            for each in sorted(every)
        ]
        self._answer(200, json.dumps(entries).encode())

    def _file(self, path: Path) -> None:
        if self.server.failures:
            self.server.failures -= 1
            return self._answer(503, b"")
        if not path.is_file():
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            return self._answer(200, data)
        start, stop = int(match[1]), int(match[2] or len(data) - 1) + 1
        self._answer(
            206, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        )

    def _answer(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import HfFileSystem

    server = Hub(("127.0.0.1", 0), _Handler)
    server.root = tmp_path / "hub"
    for revision, count in (("main", 6), ("v1", 4)):
        write(server.root / revision / "data" / "train-0.parquet", range(count))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(
        fsspec.config.conf, "hf", {"endpoint": f"http://127.0.0.1:{server.server_port}"}
    )
    HfFileSystem.clear_instance_cache()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def write(path: Path, numbers: range) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [b"%02d" % number for number in numbers]}), path)


def seen(url: str) -> list[int]:
    chosen = plan(url, Columns(keep=("split",)))
    table = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
    assert table["read_error"].null_count == len(table)
    assert set(table["keep.split"].to_pylist()) == {"train"}
    return [int(data) for data in table["image"].to_pylist()]


def test_a_dataset_of_the_hub_is_read_at_a_revision(hub: Hub, tmp_path: Path) -> None:
    assert seen("hf://datasets/u/faces") == [0, 1, 2, 3, 4, 5]
    assert seen("hf://datasets/u/faces@v1") == [0, 1, 2, 3]
    assert seen("hf://datasets/u/faces@v1/data") == [0, 1, 2, 3]
    hub.failures = 1
    assert seen("hf://datasets/u/faces@v1/data/*.parquet") == [0, 1, 2, 3]
    assert not list((tmp_path / "home").rglob("*.parquet")), "a copy was left behind"


def test_a_file_of_the_hub_that_changed_in_place_is_another(hub: Hub) -> None:
    from huggingface_hub import HfFileSystem

    def source() -> object:
        HfFileSystem.clear_instance_cache()
        return plan("hf://datasets/u/faces", Columns(), key=b"k" * 32).units[0].source

    before, path = source(), hub.root / "main" / "data" / "train-0.parquet"
    assert before == source()
    size = path.stat().st_size
    write(path, range(1, 7))
    assert path.stat().st_size == size and before != source()


def test_what_the_hub_refuses_is_one_line(hub: Hub) -> None:
    from huggingface_hub import HfFileSystem

    with pytest.raises(ValueError, match="does not exist, or not for you"):
        plan("hf://datasets/u/faces@v2", Columns())
    HfFileSystem.clear_instance_cache()
    hub.token = "hf_secret"
    with pytest.raises(UserError, match=r"the store refuses|not for you"):
        plan("hf://datasets/u/faces", Columns())
