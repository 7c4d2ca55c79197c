"""A server in a process of its own: five commands, TLS, its memory and disk, hostile peers."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ppfr_ops.match import client as client_side
from ppfr_ops.match import transport
from ppfr_ops.match.bfv import DEGREE, ring
from ppfr_ops.match.client import ask
from ppfr_ops.match.errors import MatchError
from ppfr_ops.match.keys import ClientFolder
from ppfr_ops.match.packing import quantise
from ppfr_ops.match.scores import QueryKey
from ppfr_ops.match.templates import DCT, Embedder, probe
from ppfr_ops.match.wire import Kind

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "match.md"


class Served:
    """A server started by the command, in a folder of its own, and where it listens."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        (folder / "tmp").mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
        self.folder = folder
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = re.match(r"serving on (\S+):(\d+);", line)
        assert found, line
        self.address = ("localhost", int(found[2]))

    def memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        assert self.process.stdout
        self.process.stdout.close()


def ppfr(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", CLI, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


CLI = "ppfr_ops.cli"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("match")
    np.save(folder / "people.npy", np.random.default_rng(3).normal(size=(500, 128)))
    for arguments in (
        ("match", "keygen", "keys", "--client", "alice"),
        ("match", "keygen", "keys", "--client", "bob", "--token"),
        ("match", "enrol", "people.npy", "gallery", "--keys", "keys/owner"),
    ):
        done = ppfr(folder, *arguments)
        assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", CLI, "match", "serve", "gallery", "--keys", "keys/owner"]
    options = ["--threshold", "0.9", "--listen", "127.0.0.1:0", "--per-minute", "1000"]
    server = Served(folder, [*command, *options])
    yield server
    server.stop()


def person(folder, row):
    return quantise(np.load(folder / "people.npy")[row : row + 1])[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_commands_from_the_docs(tmp_path):
    """The commands that docs/match.md shows, as they stand there, between two processes."""
    block = re.search(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert block
    commands = [line.split(" #")[0].strip() for line in block[1].splitlines()]
    assert len(commands) == 5 and all(line.startswith("ppfr ") for line in commands)
    port = socket.create_server(("127.0.0.1", 0))
    number = port.getsockname()[1]
    port.close()
    commands = [line.replace("7443", str(number)) for line in commands]
    server = None
    try:
        for line in commands:
            words = [sys.executable, "-m", CLI, *line.rstrip(" &").replace("'", "").split()[1:]]
            if line.endswith("&"):
                server = Served(tmp_path, words)
                continue
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                words, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, (line, done.stderr)
        assert done.stdout == "match\n"
        ppfr(tmp_path, "sample", "others", "--seed", "9", "--files", "1")
        other = [*words[:5], str(next((tmp_path / "others").glob("*.parquet"))), *words[6:]]
        assert other[5] != words[5] and words[5].endswith(".parquet")
        done = subprocess.run(other, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (10, "no match\n"), done.stderr
    finally:
        if server:
            server.stop()


def dump(process: int, folder: Path) -> bytes:
    """A core dump of a living process; its memory read directly where gcore is missing."""
    if shutil.which("gcore"):
        done = subprocess.run(
            ["gcore", "-a", "-o", str(folder / "core"), str(process)], capture_output=True
        )
        core = folder / f"core.{process}"
        if done.returncode == 0 and core.exists():
            data = core.read_bytes()
            core.unlink()
            return data
    parts = []
    with open(f"/proc/{process}/maps") as maps, open(f"/proc/{process}/mem", "rb") as memory:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("r") and "[v" not in line:
                memory.seek(start)
                try:
                    parts.append(memory.read(end - start))
                except OSError:
                    continue
    return b"".join(parts)


def needles(template: np.ndarray, folder: Path, key: QueryKey) -> dict[str, bytes]:
    """What must not be found: the probe in every form it has had, the secret keys."""
    modulus = np.int64(1 << 26)
    found = {
        "int16": template.tobytes(),
        "int16 reversed": template[::-1].tobytes(),
        "int64": template.astype(np.int64).tobytes(),
        "words": np.mod(template.astype(np.int64), modulus).tobytes(),
        "float32": (template / 4096).astype(np.float32).tobytes(),
        "float64": (template / 4096).astype(np.float64).tobytes(),
        "TLS key": (folder / "keys" / "alice" / "client.key").read_bytes()[30:120],
    }
    words = ring().times_secret(key.secret, np.ones((2, DEGREE), np.uint64))
    for part in range(2):  # a half a prime
        found[f"key {part}"] = words[part, 512:][:8].tobytes()
    return {name: data[:64] for name, data in found.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_and_disk_of_the_server_hold_no_probe_and_no_secret_key(
    served, tmp_path, monkeypatch
):
    folder = served.folder
    rng = np.random.default_rng(17)
    template = quantise(rng.normal(size=(1, 128)))[0]
    alice = ClientFolder(folder / "keys" / "alice")
    key = QueryKey()
    monkeypatch.setattr(client_side, "QueryKey", lambda: key)
    wanted = needles(template, folder, key)
    dumps = []
    with (
        socket.create_connection(served.address) as raw,
        transport.client_context(alice).wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        link = transport.link_over(secure)
        receive = link.receive

        def stopping(kind, length):
            result = receive(kind, length)
            # before the query, after the masked scores, after the comparison; not while the server
            # waits for a stranger to say who it is, which it does for seconds only
            if kind != Kind.CHALLENGE:
                dumps.append(dump(served.process.pid, tmp_path))
            return result

        link.receive = stopping  # type: ignore[method-assign]
        assert not ask(link, template).match
    dumps.append(dump(served.process.pid, tmp_path))
    enrolled = person(folder, 77)
    for data in dumps:
        assert enrolled[:32].tobytes() in data  # the search finds what is there: the gallery
        assert [name for name, needle in wanted.items() if needle in data] == []
    own = wanted["int16"], wanted["key 0"]
    here = dump(os.getpid(), tmp_path) if not shutil.which("gcore") else b""
    assert all(needle in here for needle in own) or shutil.which("gcore")
    files = [p for place in ("gallery", "keys/owner", "tmp") for p in (folder / place).rglob("*")]
    assert len(files) >= 6
    for path in files:
        if path.is_file():
            data = path.read_bytes()
            assert not any(needle in data for needle in (*wanted.values(), enrolled.tobytes()))


def test_certificate_token_and_strangers(served, tmp_path):
    folder, rows = served.folder, np.load(served.folder / "people.npy")
    for name in ("alice", "bob"):
        client = ClientFolder(folder / "keys" / name)
        template = quantise(rows[5:6])[0]
        assert transport.query(served.address, client, template, "5").match
        assert not transport.query(served.address, client, template, "6").match
    assert not (folder / "keys" / "bob" / "client.crt").exists()
    stranger = ClientFolder.create(tmp_path / "mallory", "alice")  # the name proves nothing
    shutil.copyfile(folder / "keys/owner/server.crt", stranger.path / "server.crt")
    with pytest.raises(MatchError, match=r"no answer|unknown client"):
        transport.query(served.address, stranger, template)
    for file in ("client.crt", "client.key"):
        (stranger.path / file).unlink()
    with pytest.raises(MatchError, match="unknown client"):
        transport.query(served.address, stranger, template)
    shutil.copyfile(folder / "keys/alice/client.crt", stranger.path / "server.crt")
    with pytest.raises(MatchError, match="did not show the certificate"):
        transport.query(served.address, stranger, template)


def test_hostile_connections_leave_the_server_alive_and_small(served):
    folder = served.folder
    alice = ClientFolder(folder / "keys" / "alice")
    context = transport.client_context(alice)
    before, rng = served.memory(), np.random.default_rng(0)
    for number in range(300):
        with socket.create_connection(served.address) as raw:
            if number % 3 == 0:
                raw.sendall(rng.bytes(2000))  # no TLS at all
                continue
            try:
                with context.wrap_socket(raw, server_hostname="localhost") as secure:
                    secure.sendall(rng.bytes(int(rng.integers(1, 5000))))
            except (OSError, ssl.SSLError):
                pass
    assert served.process.poll() is None
    assert served.memory() - before < 64 * 1024
    assert transport.query(served.address, alice, person(folder, 9)).match


def test_query_by_command(served, tmp_path):
    folder = served.folder
    address = f"localhost:{served.address[1]}"
    common = ("--keys", "keys/alice", "--server", address, "--row", "5")
    done = ppfr(folder, "match", "query", "people.npy", *common, "--name", "5")
    assert (done.returncode, done.stdout) == (0, "match\n")
    done = ppfr(folder, "match", "query", "people.npy", *common, "--name", "6")
    assert (done.returncode, done.stdout) == (10, "no match\n")
    for wrong, said in (
        (("--keys", "keys/nobody", "--server", address), "server.crt"),
        (("--keys", "keys/alice", "--server", "localhost:1"), "no answer"),
        (("--keys", "keys/alice", "--server", "nowhere"), "HOST:PORT"),
        (("--keys", "keys/alice", "--server", address, "--row", "999999"), "has 500"),
    ):
        done = ppfr(folder, "match", "query", "people.npy", *wrong)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
    done = ppfr(folder, "match", "keygen", "keys", "--client", "alice")
    assert done.returncode == 2 and "never overwritten" in done.stderr


def test_enrolling_counts_what_gave_no_template(tmp_path):
    assert ppfr(tmp_path, "sample", "faces", "--count", "12", "--files", "1").returncode == 0
    file = next((tmp_path / "faces").glob("*.parquet"))
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[3]["image"]["bytes"] = b"no picture"
    rows[7]["image"]["bytes"] = None
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    assert ppfr(tmp_path, "match", "keygen", "keys").returncode == 0
    command = ("match", "enrol", "faces/*.parquet", "gallery", "--keys", "keys/owner")
    done = ppfr(tmp_path, *command)
    assert done.returncode == 0 and done.stdout.startswith("10 templates of 143 numbers")
    assert done.stderr == "2 rows gave no template: 3, 7\n"
    done = ppfr(tmp_path, *command, "--identity-column", "nothing")
    assert done.returncode == 2 and "no column nothing" in done.stderr
    assert probe(file, Embedder(DCT), 0).shape == (1, 143)
    assert json.loads((tmp_path / "keys/owner/clients.json").read_text()).keys() == {"client"}
