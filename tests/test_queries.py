"""Asking somebody else's recogniser: the account, faults, the reference server."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from ppfr_ops import sample
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.queries.access import InvalidAnswer, Refused, Unreachable, load
from ppfr_ops.lab.queries.account import BudgetSpent, QueryAccount
from ppfr_ops.lab.queries.answers import Answers
from ppfr_ops.lab.queries.asking import QueryClient
from ppfr_ops.lab.queries.http import HttpAccess
from ppfr_ops.lab.queries.server import RecognizerServer
from ppfr_ops.recognizers import Recognizer, RecognizerSpec


class Corners(torch.nn.Module):
    """Pixels of nine places, as a template."""

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return faces[:, :, 10:112:40, 10:112:40].flatten(1) + 1.0


@pytest.fixture(scope="module")
def corners(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    path = tmp_path_factory.mktemp("fr") / "corners.pt"
    torch.jit.script(Corners()).save(str(path))
    return Recognizer(RecognizerSpec("corners", str(path)), 1)


@contextlib.contextmanager
def serving(server: RecognizerServer) -> Iterator[str]:
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield "http://{}:{}".format(*server.address)
    finally:
        server.close()
        thread.join()


def pictures(count: int) -> list[bytes]:
    return [Encoding("png").encode(face) for face in sample.faces(count, seed=3)]


def asker(access: object, folder: Path, budget: int, **named: object) -> QueryClient:
    account = QueryAccount(folder / "account.jsonl", "test", budget)
    answers = Answers(folder / "answers.sqlite")
    return QueryClient(access, account, answers, sleep=lambda s: None, **named)  # type: ignore[arg-type]


class Scripted:
    """Answers or raises what a list says."""

    def __init__(self, outcomes: Sequence[object]) -> None:
        self.outcomes, self.asked = list(outcomes), 0

    def template(self, picture: bytes, number: int) -> Sequence[float]:
        self.asked += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[return-value]

    def score(self, a: bytes, b: bytes, number: int) -> float:
        return self.template(a, number)  # type: ignore[return-value]


def test_server_and_account_agree_and_nothing_is_asked_twice(
    corners: Recognizer, tmp_path: Path
) -> None:
    faces = sample.faces(4, seed=3)
    server = RecognizerServer(corners)
    with serving(server) as url:
        access = HttpAccess(url)
        found = asker(access, tmp_path, 10)
        templates = np.stack([found.template(picture) for picture in pictures(4)])
        np.testing.assert_allclose(templates, corners.embed(faces), atol=1e-6)
        score = found.score(*pictures(2))
        assert score == pytest.approx(float(templates[0] @ templates[1]), abs=1e-6)
        assert found.score(*reversed(pictures(2))) == score
        again = asker(access, tmp_path, 10)
        for picture in pictures(4):
            again.template(picture)
        assert again.reused == 4
        assert again.account.spent == access.info().queries == len(server.received) == 5
        assert server.received == [1, 2, 3, 4, 5]


def test_scores_only_tokens_and_strange_requests(corners: Recognizer) -> None:
    server = RecognizerServer(corners, scores_only=True, token="secret")
    picture = pictures(1)[0]
    with serving(server) as url:
        with pytest.raises(Refused, match="HTTP 401"):
            HttpAccess(url).info()
        access = HttpAccess(url, token="secret")
        assert access.info().dimensions is None and access.info().answers == ["score"]
        with pytest.raises(Refused, match="HTTP 404"):
            access.template(picture, 1)
        with pytest.raises(Refused, match="HTTP 400"):
            access.score(picture, b"no picture", 2)
        assert access.score(picture, picture, 3) == pytest.approx(1)
        with pytest.raises(Refused, match="HTTP 413"):
            access.score(picture, bytes(3 << 20), 4)


def test_a_server_listens_on_this_machine_only(corners: Recognizer) -> None:
    with pytest.raises(UserError, match="--anywhere"):
        RecognizerServer(corners, ("0.0.0.0", 0))


def test_every_attempt_is_counted_and_the_budget_is_never_exceeded(tmp_path: Path) -> None:
    down = Unreachable("down")
    access = Scripted([down, [1.0, 0.0], down, down, down, [0.0, 1.0]])
    found = asker(access, tmp_path, 5)
    found.template(b"a")
    with pytest.raises(BudgetSpent, match="5 queries"):
        found.template(b"b")
    assert access.asked == found.account.spent == 5
    assert found.account.failures == {"unreachable": 4}
    with pytest.raises(BudgetSpent):
        found.template(b"c")
    assert access.asked == 5
    assert asker(access, tmp_path, 6).template(b"b").tolist() == [0, 1]


def test_it_gives_up_after_some_attempts(tmp_path: Path) -> None:
    access = Scripted([Unreachable("the endpoint is down")] * 9)
    with pytest.raises(Unreachable, match="down"):
        asker(access, tmp_path, 9, attempts=3).template(b"a")
    assert access.asked == 3


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ([1.0], "has 1 numbers, others 2"),
        ([float("nan"), 1.0], "NaN"),
        ([0.0, 0.0], "zero"),
        ([], "empty"),
        ([[1.0, 2.0]], "empty"),
        ("hello", "not numeric"),
    ],
)
def test_lies_are_one_line_and_not_asked_again(reply: object, words: str, tmp_path: Path) -> None:
    access = Scripted([[1.0, 0.0], reply, [0.0, 1.0]])
    found = asker(access, tmp_path, 9)
    found.template(b"a")
    with pytest.raises(InvalidAnswer, match=words) as error:
        found.template(b"b")
    assert "\n" not in str(error.value) and access.asked == found.account.spent == 2
    with pytest.raises(InvalidAnswer):
        asker(Scripted([float("inf")]), tmp_path, 9).score(b"a", b"b")


class _Bad(BaseHTTPRequestHandler):
    """What it does comes with the server."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts += 1  # type: ignore[attr-defined]
        self.server.behave(self)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        pass


def _says(status: int, body: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def _drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(40):
            handler.wfile.write(b" ")
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("behave", "kind", "words"),
    [
        (_says(403, b"{}"), Refused, r"refuses \(HTTP 403\)"),
        (_says(503, b"{}"), Unreachable, r"busy \(HTTP 503\)"),
        (_says(302, b"", Location="/v1/template"), Refused, "HTTP 302"),
        (_says(200, b"no json"), InvalidAnswer, "not a template"),
        (_says(200, b'{"template": "x"}'), InvalidAnswer, "not a template"),
        (_says(200, b"[" * 5000), InvalidAnswer, "not a template"),
        (_says(200, b" " * (2 << 20)), InvalidAnswer, "larger than"),
        (_says(200, b'{"template": [NaN]}'), InvalidAnswer, "NaN"),
        (_drips, Unreachable, "slow"),
    ],
)
def test_faults_over_http_are_one_line_each(
    behave: object, kind: type[Exception], words: str, tmp_path: Path
) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Bad)
    server.posts, server.behave = 0, behave  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    access = HttpAccess(f"http://127.0.0.1:{server.server_port}", timeout=0.5)
    found = asker(access, tmp_path, 9, attempts=2)
    with pytest.raises(kind, match=words) as error:
        found.template(pictures(1)[0])
    assert "\n" not in str(error.value)
    assert server.posts == found.account.spent  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()


def _endless(first: bytes, piece: bytes, pause: float) -> Callable[[socket.socket], None]:
    """A server that goes on until its client hangs up; for 20 s, or a client waits for ever."""

    def behave(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        end = time.monotonic() + 20
        with contextlib.suppress(OSError):
            connection.sendall(first)
            while time.monotonic() < end:
                connection.sendall(piece)
                time.sleep(pause)

    return behave


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "behave",
    [
        _endless(b"HTTP/1.1 200 OK\r\n", b"X-Slow: yes\r\n", 0.05),
        _endless(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a", 0.05),
        _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
        _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
        _endless(_CHUNKED, b"0", 0.05),
        _endless(_CHUNKED, b"1\r\n \r\n", 0.05),
        _endless(_CHUNKED + b"1;", b"x", 0.05),
        lambda connection: [None for _ in iter(lambda: connection.recv(1 << 16), b"")],
    ],
    ids=["headers", "a header", "continue", "fast continue", "size", "chunks", "extension", "mute"],
)
def test_one_deadline_ends_whatever_an_endpoint_does(behave: Callable[..., None]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            behave(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    access = HttpAccess(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5)
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"slow|down"):
        access.template(b"a", 1)
    assert time.monotonic() - began < 5
    thread.join(5)
    assert not thread.is_alive()  # it was hung up on
    listener.close()


def test_the_environment_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A password in ~/.netrc took the token's place; a proxy would see every picture."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    shown: list[str | None] = []

    def behave(handler: BaseHTTPRequestHandler) -> None:
        shown.append(handler.headers["Authorization"])
        _says(200, b'{"template": [1.0]}')(handler)

    server = HTTPServer(("127.0.0.1", 0), _Bad)
    server.posts, server.behave = 0, behave  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert HttpAccess(url, token="secret").template(b"a", 1) == [1.0]
    assert HttpAccess(url).template(b"a", 2) == [1.0]
    assert shown == ["Bearer secret", None]
    server.shutdown()
    server.server_close()
    thread.join()


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    found = asker(HttpAccess("http://127.0.0.1:9", timeout=1), tmp_path, 9, attempts=2)
    with pytest.raises(Unreachable, match="down"):
        found.template(b"a")
    assert found.account.spent == 2


def test_the_wait_that_an_endpoint_asks_for(tmp_path: Path) -> None:
    waits: list[float] = []
    access = Scripted([Unreachable("busy", 7.0), Unreachable("busy", 1e9), [1.0]])
    account = QueryAccount(tmp_path / "account.jsonl", "test", 9)
    QueryClient(access, account, Answers(tmp_path / "a.sqlite"), sleep=waits.append).template(b"a")
    assert waits == [7.0, 60.0]


def test_the_rate_is_limited(tmp_path: Path) -> None:
    waits: list[float] = []
    account = QueryAccount(tmp_path / "account.jsonl", "test", 9)
    access, answers = Scripted([[1.0]] * 3), Answers(tmp_path / "a.sqlite")
    found = QueryClient(access, account, answers, per_second=0.01, sleep=waits.append)
    for content in (b"a", b"b", b"c"):
        found.template(content)
    assert waits[0] == 0 and 50 < waits[1] <= 100 and 150 < waits[2] <= 200


def test_a_changed_account_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "account.jsonl"
    account = QueryAccount(path, "test", 9)
    for content in "abc":
        account.spend("template", content)
    whole = path.read_text()
    for text in (
        whole.replace('"content": "b"', '"content": "x"'),
        "".join(whole.splitlines(True)[:2] + whole.splitlines(True)[3:]),
        whole + "nonsense\n",
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=r"account\.jsonl"):
            QueryAccount(path, "test", 9)
    path.write_text(whole)
    with pytest.raises(UserError, match="another endpoint"):
        QueryAccount(path, "other", 9)
    with path.open("a") as file:
        file.write('{"line": 5, "half')  # its writer died
    again = QueryAccount(path, "test", 9)
    assert (again.spent, again.head) == (3, account.head)
    again.spend("template", "d")
    account.refresh()
    assert account.spent == 4 and account.head == again.head


def test_threads_and_objects_share_a_budget(tmp_path: Path) -> None:
    accounts = [QueryAccount(tmp_path / "account.jsonl", "test", 50) for _ in range(2)]
    numbers: list[int] = []

    def work(account: QueryAccount) -> None:
        with contextlib.suppress(BudgetSpent):
            while True:
                numbers.append(account.spend("template", "x"))

    threads = [threading.Thread(target=work, args=(accounts[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 51))


_CLIENT = """
import sys
from pathlib import Path
from ppfr_ops import sample
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.queries.account import BudgetSpent, QueryAccount
from ppfr_ops.lab.queries.answers import Answers
from ppfr_ops.lab.queries.asking import QueryClient
from ppfr_ops.lab.queries.http import HttpAccess
folder, url, budget, begin = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
account = QueryAccount(folder / "account.jsonl", "test", budget)
asker = QueryClient(HttpAccess(url), account, Answers(folder / "answers.sqlite"))
faces = sample.faces(60, seed=3)
try:
    for number in range(60):
        asker.template(Encoding("png").encode(faces[(begin + number) % 60]))
except BudgetSpent:
    print("spent")
"""


def test_two_workers_killed_and_gone_on_with(corners: Recognizer, tmp_path: Path) -> None:
    """Every query that arrived was counted, once, under its number; a killed worker may have
    counted one more, that was never sent; the budget holds."""
    server, budget = RecognizerServer(corners), 50
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def client(begin: int) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", _CLIENT, str(tmp_path), url, str(budget), str(begin)]
        return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True)

    with serving(server) as url:
        first = [client(0), client(30)]
        while len(server.received) < 12:
            assert any(worker.poll() is None for worker in first) or len(server.received) >= 12
            time.sleep(0.002)
        for worker in first:
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
        second = [client(0), client(30)]
        for worker in second:
            assert "spent" in worker.communicate(timeout=120)[0]
    account = QueryAccount(tmp_path / "account.jsonl", "test", budget)
    assert account.spent == budget
    arrived = [number for number in server.received if number is not None]
    assert len(arrived) == len(server.received) == len(set(arrived)) <= budget
    assert set(arrived) <= set(range(1, budget + 1))
    never_sent = budget - len(arrived)
    assert never_sent <= len(first)
    lines = [json.loads(line) for line in (tmp_path / "account.jsonl").read_text().splitlines()]
    assert sum(line["event"] == "query" for line in lines) == budget


def test_an_access_of_ones_own() -> None:
    assert isinstance(load(f"{__name__}:Silent"), Silent)
    for name in ("nothing", "no.such:Thing", f"{__name__}:Gone"):
        with pytest.raises(UserError, match="endpoint"):
            load(name)


class Silent:
    """An access that has nothing to say."""
