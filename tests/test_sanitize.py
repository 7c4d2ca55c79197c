"""The command itself, as a user runs it."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from meeting import STORE_BYTES, forms
from pictures import DEAD, HANDLED, PLANTED, jpeg
from poison import is_marked

from ppfr_ops.cli.sanitize import main
from ppfr_ops.contracts import VERSIONS
from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.contracts.records import IMAGE_TYPE
from ppfr_ops.imaging.codec import decode
from ppfr_ops.sample import faces, write_sample
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import owner_key, prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "pipelines" / "sanitize.py"
NAME = "Jane_Doe"


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A TMPDIR of one's own: what Ray leaves there can be looked at."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def environment(short_tmp: Path) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        "TMPDIR": str(short_tmp),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "2",
    }


def sanitize(
    short_tmp: Path, *options: object, cwd: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(
        command,
        env=environment(short_tmp) | more,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
    )


def plant_modules(folder: Path) -> Path:
    """Modules as an input may bring them along, for whoever works in its folder."""
    folder.mkdir()
    for name in ("cv2", "numpy", "pandas", "pyarrow", "PIL", "torch", "ppfr_ops", "pickle"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    return folder


def write_faces(path: Path, pictures: list[bytes | None], first: int = 0) -> None:
    rows = [
        {
            "image": {"bytes": data, "path": f"{NAME}_{first + row}.jpg"},
            "identity": f"{NAME}_{row % 4}",
            "age": row,
            "secret": NAME,
        }
        for row, data in enumerate(pictures)
    ]
    fields = [("image", IMAGE_TYPE), ("identity", pa.string()), ("age", pa.int16())]
    schema = pa.schema([*fields, ("secret", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=16)


def good(count: int, seed: int = 0) -> list[bytes | None]:
    return [jpeg(face) for face in faces(count, seed)]


def assert_sound(output: Path) -> Manifest:
    """Every shard is as the manifest says, every id once, nothing else is there."""
    manifest = Manifest.model_validate_json((output / "evidence/manifest.json").read_text())
    names = {"release/manifest.json", "release/files.pq", "release/verify.py"}
    names |= {"evidence/manifest.json", "evidence/seal.json"}
    names |= {f"evidence/{path.name}" for path in (output / "evidence").glob("seal.*.parquet")}
    names |= {f"evidence/ledger/{name}" for name in ("run.json", "secret.json", "entries.parquet")}
    # settled.json: nothing was left to do; the others: the owner gave no key
    for name in ("settled.json", "release_key.json"):
        if (output / "evidence/ledger" / name).exists():
            names.add(f"evidence/ledger/{name}")
    ids: list[str] = []
    dead: list[str] = []
    for unit in Ledger(str(output)).entries().values():
        names.add(f"evidence/ledger/units/{unit.unit}.json")
        for kind, shard in unit.shards.items():
            names.add(shard.path)
            data = (output / shard.path).read_bytes()
            assert hashlib.sha256(data).hexdigest() == shard.sha256
            assert len(data) == shard.bytes
            table = pq.read_table(pa.BufferReader(data))
            assert table.num_rows == shard.rows
            told = table.schema.metadata[b"ppfr_schema"].decode()
            name = "records" if kind == "data" else kind
            assert told == f"{name}/{VERSIONS[name]}"
            if kind != "metrics":
                (ids if kind == "data" else dead).extend(table["record_id"].to_pylist())
    assert len(set(ids + dead)) == len(ids) + len(dead) == manifest.counts.rows_in
    assert (len(ids), len(dead)) == (manifest.counts.records, manifest.counts.dead_letters)
    found = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    others = ("evidence/ledger/l", "evidence/ledger/crowd/")  # lease and last run; the first look
    assert {name for name in found if not name.startswith(others)} == names
    return manifest


def assert_nameless(*folders: Path) -> None:
    """No name, no planted metadata, in any file or in any value of a Parquet file."""
    for folder in folders:
        for path in folder.rglob("*"):
            assert NAME not in path.name
            if not path.is_file():
                continue
            data = path.read_bytes()
            if path.suffix == ".parquet":
                sink = pa.BufferOutputStream()
                table = pq.read_table(path)
                with pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
                data += sink.getvalue().to_pybytes()
            assert NAME.encode() not in data, path
            assert PLANTED not in data, path


@pytest.mark.slow
def test_a_messy_dataset_end_to_end(tmp_path: Path, short_tmp: Path) -> None:
    source, output = tmp_path / NAME, tmp_path / "out"
    clean = good(40)
    write_faces(source / "a.parquet", clean[:30])
    odd = [make() for make in HANDLED.values()]
    bad = [make() for make, _ in DEAD.values()]
    write_faces(source / "b.parquet", [*clean[30:35], *odd, *bad, *clean[35:]])
    write_faces(source / "c.parquet", clean)
    whole = (source / "c.parquet").read_bytes()
    (source / "c.parquet").write_bytes(whole[: len(whole) // 2])
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef\n")
    options = ("--input", source, "--identity-column", "identity", "--identity-key-file", key)
    # A method without a network, whose last bits would hang on the number of threads.
    options += ("--keep-column", "age", "--unit-rows", "20", "--seed", "1", "--method", "highpass")
    options += ("--engine", "ray")
    mapping = tmp_path / "safe" / "mapping.parquet"
    mapping.parent.mkdir()
    place = plant_modules(tmp_path / "cwd")
    more = ("--output", output, "--mapping", mapping, "--json")
    done = sanitize(short_tmp, *options, *more, cwd=place)
    assert not (place / "ran").exists()
    assert done.returncode == 3, done.stderr
    assert "input was lost that cannot be counted (unreadable_unit)" in done.stderr
    assert NAME not in done.stdout + done.stderr
    assert "streaming_executor" not in done.stderr  # Ray's own log is not for users
    manifest = assert_sound(output)
    assert_nameless(output)
    assert not list(short_tmp.iterdir())

    counts = manifest.counts
    assert counts.records == 40 + len(HANDLED)
    codes = [code for _, code in DEAD.values()] + ["unreadable_unit"]
    assert counts.dead_letters_by_code == {code: codes.count(code) for code in codes}
    assert json.loads(done.stdout)["counts"] == counts.model_dump()
    records = pq.read_table(output / "release/data")
    assert records.schema.names == ["record_id", "image", "identity", "age"]
    assert len(set(records["identity"].to_pylist())) == 4

    owners = pq.read_table(mapping)
    assert stat.S_IMODE(mapping.stat().st_mode) == 0o600
    assert owners.num_rows == counts.rows_in
    assert set(records["record_id"].to_pylist()) < set(owners["record_id"].to_pylist())

    # The same units through a bare loop: byte for byte the same shards.
    keyed = {"identity_column": "identity", "identity_key_file": str(key)}
    job = prepare(
        SanitizeOptions(
            input=str(source),
            output=str(tmp_path / "bare"),
            keep_columns=("age",),
            unit_rows=20,
            seed=1,
            method="highpass",
            **keyed,
        )
    )
    Ledger(job.options.output).open(job.settings, seed=1)
    worker = Worker(job)
    for number in range(len(job.plan.units)):
        assert worker.process(number).state == "committed"
    for path in (output / "release/data").iterdir():
        assert path.read_bytes() == (tmp_path / "bare/release/data" / path.name).read_bytes()


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the driver, and then to everything that it started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    family, queue = [], [process.pid]
    while queue:
        family.append(queue.pop())
        queue += children.get(family[-1], [])
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_at_a_third_and_two_thirds_and_started_again(
    tmp_path: Path, short_tmp: Path
) -> None:
    source, output = tmp_path / NAME, tmp_path / "out"
    pictures = good(12)
    for number in range(12):
        write_faces(source / f"{NAME}_{number:02d}.parquet", pictures * 2)
    units = output / "evidence" / "ledger" / "units"
    options = ["--input", str(source), "--output", str(output), "--unit-rows", "24"]
    options += ["--method", "stochastic-local", "--identity", "original"]
    finished: dict[str, bytes] = {}
    for wanted in (4, 8):
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *options],
            env=environment(short_tmp),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 240
        while len(list(units.glob("*.json"))) < wanted and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        kill_tree(process)
        # What a killed run leaves behind names nobody either.
        assert_nameless(short_tmp)
        for name, data in finished.items():
            assert (units / name).read_bytes() == data
        finished = {path.name: path.read_bytes() for path in units.glob("*.json")}
        assert wanted <= len(finished) < 12
    done = sanitize(short_tmp, *options)
    assert done.returncode == 0, done.stderr
    assert "12 units" in done.stderr
    for name, data in finished.items():
        assert (units / name).read_bytes() == data
    assert assert_sound(output).counts.records == 12 * 24
    assert not list(short_tmp.iterdir())
    again = sanitize(short_tmp, *options)
    assert again.returncode == 0 and "12 of them done before" in again.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)  # Ray starts anew after every death
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_face_that_kills_its_worker_becomes_a_dead_letter(
    engine: str, tmp_path: Path, short_tmp: Path
) -> None:
    pictures = good(6)
    marked = faces(6)[2].copy()
    marked[:16, :16] = (255, 0, 0)
    assert is_marked(decode(jpeg(marked))[None]).all()
    write_faces(tmp_path / "in" / "a.parquet", pictures)
    write_faces(tmp_path / "in" / "b.parquet", [*pictures[:2], jpeg(marked), *pictures[3:]])
    options = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--metrics", "none")
    place = plant_modules(tmp_path / "cwd")
    options += ("--method", "poison:Poison", "--engine", engine)
    done = sanitize(short_tmp, *options, cwd=place)
    assert not (place / "ran").exists()
    assert done.returncode == 3, done.stderr
    assert "u000001 killed its worker 3 times and was taken apart: 1 dead letters" in done.stderr
    manifest = assert_sound(tmp_path / "out")
    assert manifest.counts.dead_letters_by_code == {"killed_worker": 1}
    dead = pq.read_table(tmp_path / "out/evidence/dead_letters")["record_id"].to_pylist()
    assert dead == ["u000001-000002"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, count=12, identities=3, files=1)
    return folder


def refused(*options: object) -> str:
    """What a command says that ends with exit code 2."""
    result = CliRunner().invoke(main, list(map(str, options)))
    assert result.exit_code == 2, result.output
    return result.stderr


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_no_unit_waits_for_a_busy_worker_while_another_is_idle(
    engine: str, tmp_path: Path, short_tmp: Path
) -> None:
    for part in range(2):
        write_faces(tmp_path / "in" / f"{part}.parquet", good(16, part))
    (tmp_path / "met").mkdir()
    key = tmp_path / "key"
    key.write_bytes(os.urandom(24))
    key.chmod(0o600)
    more = {}
    if engine == "ray":
        # No key of the owner in the object store, nor in what it spills; the output's place is.
        (tmp_path / "spilled").mkdir()
        spills = {"type": "filesystem", "params": {"directory_path": str(tmp_path / "spilled")}}
        more["RAY_object_spilling_config"] = json.dumps(spills)
        more["RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"] = str(STORE_BYTES)
        secret = owner_key(key.read_bytes(), seeded=False)
        wanted = [str(tmp_path / "out").encode(), *forms(key.read_bytes()), *forms(secret)]
        (tmp_path / "wanted.json").write_text(json.dumps([item.hex() for item in wanted]))
    done = sanitize(
        short_tmp,
        *("--input", tmp_path / "in", "--output", tmp_path / "out", "--actors", 2),
        *("--engine", engine, "--identity-column", "identity", "--identity-key-file", key),
        *("--method", "meeting:Meeting", "--method-option", f"folder={tmp_path / 'met'}"),
        **more,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "met").iterdir())) == 2
    found = [one for path in tmp_path.glob("found.*.json") for one in json.loads(path.read_text())]
    assert found == ([[True] + [False] * (len(wanted) - 1)] * 3 if engine == "ray" else [])
    assert not list((tmp_path / "out/evidence/ledger").glob("workers/*"))


def test_wrong_usage_is_one_line_and_exit_code_2(sample: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef")
    out = tmp_path / "out"
    base = ("--input", sample, "--output", out)
    cases = {
        "the input does not exist": ("--input", tmp_path / "nope", "--output", out),
        "must not lie inside each other": ("--input", sample, "--output", sample / "out"),
        "unknown method 'nope'": (*base, "--method", "nope"),
        "no class Nope in a module nope": (*base, "--method", "nope:Nope"),
        "option 'sigma': expected more than 0": (
            *base,
            "--method=blur",
            "--method-option=sigma=-1",
        ),
        "expected KEY=VALUE": (*base, "--method-option", "sigma"),
        "the identity key cannot be read": (*base, "--identity-key-file", tmp_path / "nope"),
        "FR model 'x': no such file": (*base, "--fr", f"x={tmp_path}/nope.onnx"),
        "expected NAME=PATH": (*base, "--fr", "nope"),
        "the output has a column of that name": (*base, "--keep-column", "identity"),
        "the mapping must not lie inside the output": (*base, "--mapping", out / "map.parquet"),
        "no column 'nope'": (*base, "--keep-column", "nope"),
    }
    for message, options in cases.items():
        said = refused(*options)
        assert message in said and len(said.strip().splitlines()) == 1, said
        assert not out.exists()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    assert "not a readable ONNX file" in refused(*base, "--fr", f"x={broken}")


def test_dry_run_writes_nothing_and_tells_what_would_be(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["--input", str(sample), "--output", str(out), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "12 rows in 1 unit," in result.stderr and "disclosure" in result.stderr
    assert not out.exists()


def test_help_teaches_by_example() -> None:
    said = CliRunner().invoke(main, ["--help"]).output
    assert "Examples:" in said and "ppfr sanitize --input" in said and "Exit codes:" in said
