"""Formats of inputs: the registry, and what each reader makes of made files."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pictures import jpeg
from test_sanitize import ROOT, environment, short_tmp

from ppfr_ops.errors import UserError
from ppfr_ops.sample import faces
from ppfr_ops.source import formats
from ppfr_ops.source.plan import Columns, plan, read_unit

__all__ = ["short_tmp"]

LINES = '''
"""Pictures in letters: a line a picture, `LABEL HEX`."""

import pyarrow as pa

from ppfr_ops.source.reader import MissingColumnError, Reader, Record, table_of
from ppfr_ops.source.units import Unit, even


class Lines(Reader):
    name = "lines"
    what = "pictures in letters"
    suffixes = frozenset({".lines"})

    def columns(self, listing, paths, columns):
        for name in columns.beside:
            if name != "label":
                raise MissingColumnError(name, ["label"])
        return columns, tuple(pa.field(name, pa.string()) for name in columns.keep)

    def cut(self, listing, paths, cutting):
        for path in paths:
            rows = listing.fs.cat_file(path).count(b"\\n")
            for start, stop in even(rows, cutting.unit_rows):
                yield Unit("", self.name, (path,), start, stop)

    def read(self, fs, plan, unit):
        records = []
        for line in fs.cat_file(unit.sources[0]).decode().splitlines()[unit.start : unit.stop]:
            label, letters = line.split()
            records.append(Record(bytes.fromhex(letters), values={"label": label}))
        return table_of(plan, records)
'''


def lines(path: Path, count: int) -> list[bytes]:
    made = [jpeg(face) for face in faces(count)]
    path.write_text("".join(f"Jane_{n} {data.hex()}\n" for n, data in enumerate(made)))
    return made


def test_a_format_is_registered_and_known_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lines(tmp_path / "a.lines", 5)
    with pytest.raises(UserError, match="no Parquet"):
        plan(str(tmp_path), Columns())
    scope: dict[str, type] = {}
    exec(LINES, scope)
    monkeypatch.setattr(formats, "_registered", {})
    formats.register(scope["Lines"]())
    chosen = plan(str(tmp_path), Columns(identity="label"), unit_rows=2)
    assert chosen.format == "lines" and [unit.rows for unit in chosen.units] == [1, 2, 2]
    tables = [read_unit(chosen, unit) for unit in chosen.units]
    assert [data for table in tables for data in table["image"].to_pylist()] == made
    assert tables[0]["identity"].to_pylist() == ["Jane_0"]
    assert plan(str(tmp_path), Columns(), format="lines").rows == 5
    with pytest.raises(UserError, match="no column 'age'"):
        plan(str(tmp_path), Columns(keep=("age",)))
    with pytest.raises(UserError, match="'nope': there are: auto, images, lines, parquet"):
        plan(str(tmp_path), Columns(), format="nope")


@pytest.mark.slow
def test_a_format_of_an_installed_package_is_read_by_the_command(
    tmp_path: Path, short_tmp: Path
) -> None:
    """In worker processes, too."""
    folder = tmp_path / "elsewhere"
    info = folder / "lines-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "lines_format.py").write_text(LINES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lines\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        textwrap.dedent("""\
            [ppfr.formats]
            lines = lines_format:Lines
            """)
    )
    (tmp_path / "in").mkdir()
    lines(tmp_path / "in" / "a.lines", 5)
    settings = environment(short_tmp)
    settings["PYTHONPATH"] = f"{folder}:{settings['PYTHONPATH']}"
    command = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    command += ["--method", "pixelate"]
    done = subprocess.run(
        [sys.executable, "-m", "ppfr_ops.cli", "sanitize", *command, "--metrics", "none"],
        env=settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    shards = sorted((tmp_path / "out").rglob("release/**/data/*.parquet"))
    assert sum(pq.read_table(shard).num_rows for shard in shards) == 5
