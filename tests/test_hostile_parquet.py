"""No number that a Parquet file has is believed: no row vanishes, nothing is exhausted."""

import resource
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from thrift import FILE_ROWS, Number, group_rows, numbers, replaced

from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.source.plan import Columns, plan, read_unit

ROWS = 23
GROUP = 7


@pytest.fixture
def sound(tmp_path: Path) -> bytes:
    path = tmp_path / "sound"
    table = pa.table({"image": [b"%d" % n * 20 for n in range(ROWS)], "age": list(range(ROWS))})
    pq.write_table(table, path, row_group_size=GROUP)
    return path.read_bytes()


def number(file: bytes, path: tuple[int, ...]) -> Number:
    return next(item for item in numbers(file) if item.path == path)


def read_all(folder: Path, unit_rows: int = 5) -> tuple[list[int], list[str]]:
    """The numbers of the pictures that were read, and the reasons of the rows that were not."""
    chosen = plan(str(folder), Columns(keep=("age",)), unit_rows=unit_rows)
    table = pa.concat_tables([read_unit(chosen, unit) for unit in chosen.units])
    codes = [code for code in table["read_error"].to_pylist() if code is not None]
    return [age for age in table["keep.age"].to_pylist() if age is not None], codes


def planted(tmp_path: Path, data: bytes) -> Path:
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    (folder / "a.parquet").write_bytes(data)
    return folder


@pytest.mark.parametrize("claim", [5, 0, -4, -(2**62)])
def test_a_total_that_is_too_low_loses_nothing(tmp_path: Path, sound: bytes, claim: int) -> None:
    folder = planted(tmp_path, replaced(sound, number(sound, FILE_ROWS), claim))
    assert read_all(folder) == (list(range(ROWS)), [])


@pytest.mark.parametrize("claim", [24, 2_000_000_000, 2**62])
def test_a_total_that_is_too_high_is_said(tmp_path: Path, sound: bytes, claim: int) -> None:
    folder = planted(tmp_path, replaced(sound, number(sound, FILE_ROWS), claim))
    assert read_all(folder) == (list(range(ROWS)), ["contradictory_unit"])


@pytest.mark.parametrize("claim", [3, 0, -5, 10, 2_000_000_000, 2**62])
def test_a_row_group_that_contradicts_its_columns_is_said(
    tmp_path: Path, sound: bytes, claim: int
) -> None:
    folder = planted(tmp_path, replaced(sound, number(sound, group_rows(1)), claim))
    ages, codes = read_all(folder)
    # Rows of the group are read or dead letters; those of the others are all there.
    assert set(range(ROWS)) - set(ages) <= set(range(GROUP, 2 * GROUP))
    assert len(ages) + codes.count("unreadable_row") == ROWS
    assert codes.count("contradictory_unit") == 1 and REASONS["contradictory_unit"].fatal


def test_two_billion_rows_that_all_numbers_agree_on_exhaust_nothing(
    tmp_path: Path, sound: bytes
) -> None:
    data = replaced(sound, number(sound, FILE_ROWS), 2_000_000_000)
    for place in range(len(numbers(data))):
        item = numbers(data)[place]
        if item.path[:2] == (4, 1) and item.value == GROUP:
            data = replaced(data, item, 2_000_000_000)
    folder = planted(tmp_path, data)
    # The same in a file that is long enough for them, and nearly all hole.
    end = len(data) - int.from_bytes(data[-8:-4], "little") - 8
    with open(folder / "b.parquet", "wb") as file:
        file.write(data[:end])
        file.seek(200 * 10**9)
        file.write(data[end:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_all(folder) == ([], ["unreadable_unit"] * 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_a_plan_is_no_larger_than_its_files(tmp_path: Path) -> None:
    """A million rows without a picture, as many as are believed, and their units."""
    picture = pa.array([b"picture", *[None] * (2**20 - 1)], pa.binary())
    pq.write_table(pa.table({"image": picture}), tmp_path / "a.parquet")
    chosen = plan(str(tmp_path), Columns(), unit_rows=1000)
    assert chosen.rows == 2**20 and len(chosen.units) == 1049
    assert read_unit(chosen, chosen.units[0])["image"][0].as_py() == b"picture"
    pq.write_table(pa.table({"image": pa.concat_arrays([picture] * 2)}), tmp_path / "a.parquet")
    chosen = plan(str(tmp_path), Columns(), unit_rows=1000)
    assert [unit.damaged for unit in chosen.units] == ["unreadable_unit"]  # said, not lost


@pytest.mark.slow
def test_every_fifth_number_of_a_footer_replaced(tmp_path: Path, sound: bytes) -> None:
    """Rows are read or have a reason, or the file has one that ends the run with exit code 3."""
    for place, item in enumerate(numbers(sound)[::5]):
        value = (0, -1, 2**31 - 1, 2**40, 10**18)[place % 5]
        folder = planted(tmp_path, replaced(sound, item, value))
        for name in ("b", "c"):
            (folder / f"{name}.parquet").write_bytes(sound)
        ages, codes = read_all(folder, 100)
        assert ages[-2 * ROWS :] == list(range(ROWS)) * 2, item
        lost = 3 * ROWS - len(ages)
        fatal = any(REASONS[code].fatal for code in codes)
        assert fatal or len(codes) == lost, (item, value, codes)


def test_a_bad_file_that_sorts_first_does_not_choose_the_columns(
    tmp_path: Path, sound: bytes
) -> None:
    folder = planted(tmp_path, sound)
    for name in ("b", "c"):
        (folder / f"{name}.parquet").write_bytes(sound)
    pq.write_table(pa.table({"other": [b"x"], "age": ["a"]}), folder / "0.parquet")
    ages, codes = read_all(folder)
    assert ages == list(range(ROWS)) * 3 and codes == ["missing_column"]
