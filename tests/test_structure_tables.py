"""The structure attack on a release as a table, read as the table's own library has it."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg
from test_increments import run
from test_structure import PEOPLE, World

from ppfr_ops.lab.evaluate.released import faces_in, read_release_folder
from ppfr_ops.lab.evaluate.structure import Attacked, structure_attack
from ppfr_ops.release.tables import _WRITERS, KINDS, NAME, Kind, export_table
from ppfr_ops.sample import faces

for library in ("deltalake", "lance", "pyiceberg"):
    pytest.importorskip(library)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mixed", [False, True])
def test_a_table_names_whom_its_shards_name(tmp_path: Path, kind: Kind, mixed: bool) -> None:
    world = World(tmp_path, mixed=mixed, ordered=not mixed, sizes=np.full(PEOPLE, 6))
    paths = sorted((world.release / "data").glob("*.parquet"))
    shards = [(f"data/{path.name}", path.read_bytes()) for path in paths]
    world.release = tmp_path / "table"
    release: Any = SimpleNamespace(shards_data=lambda: iter(shards))
    _WRITERS[kind](release, world.release)
    told = world.attack()
    assert told.records == PEOPLE * 6 and told.pseudonyms == PEOPLE
    right = max(attack.right or 0 for attack in told.attacks)
    assert right <= 8 if mixed else right > 0.95 * PEOPLE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of 40 people in 8 shards."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "in").mkdir()
    drawn = faces(4)
    for number in range(2):
        who = [f"Jane Roe {number}{row % 20}" for row in range(100)]
        table = pa.table({"image": [jpeg(drawn[row % 4]) for row in range(100)], "identity": who})
        pq.write_table(table, folder / "in" / f"secret-{number}.parquet")
    given = ["--unit-rows=25", "--identity-column=identity"]
    done = run(folder, *given, f"--mapping={folder}/mapping.parquet")
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_tells_what_the_release_tells(made: Path, tmp_path: Path, kind: Kind) -> None:
    place = tmp_path / "table"
    export_table(str(made / "out"), str(place), kind)
    told = {
        where: structure_attack(Attacked(str(where), f"{made}/in", f"{made}/mapping.parquet"))
        for where in (made / "out", place)
    }
    for found in told.values():
        assert (found.people, found.records) == (40, 200)
        assert max(attack.right or 0 for attack in found.attacks) <= 8
    both = [read_release_folder(str(where)) for where in told]
    pictures = [Counter(face.tobytes() for face in faces_in(found.files)) for found in both]
    assert pictures[0] == pictures[1]
    assert sorted(both[0].seen.ids) == sorted(both[1].seen.ids)
    if kind == "lance":  # the order of the release is drawn at random, and kept
        assert both[0].seen.ids == both[1].seen.ids
    text = metadata(place, kind)
    # The text is looked at: it holds the files' least values.
    assert kind == "lance" or min(both[1].seen.ids)[:16] in text
    for secret in ("secret-", "Jane", str(made), "mapping.parquet"):
        assert secret not in text


def metadata(place: Path, kind: Kind) -> str:
    """All that a table says besides its rows; times that tell one file from another are refused."""
    text = "".join(
        path.read_bytes().decode("latin-1")
        for path in place.rglob("*")
        if path.is_file() and path.suffix not in (".parquet", ".lance")
    )
    if kind == "delta":
        import deltalake

        added = pa.table(deltalake.DeltaTable(place).get_add_actions(flatten=True))
        assert added.num_rows > 1
        assert len(set(added["modification_time"].to_pylist())) == 1
    elif kind == "iceberg":
        from pyiceberg.catalog.sql import SqlCatalog

        table = SqlCatalog("ppfr", uri=f"sqlite:///{place}/catalog.db").load_table(NAME)
        entries = table.inspect.entries().to_pylist()
        assert len(entries) > 1 and len({row["snapshot_id"] for row in entries}) == 1
        text += str(entries) + str(table.inspect.files().to_pylist())
    else:
        import lance

        # One fragment, so there is no order of files; and one version, so none of commits.
        data = lance.dataset(place)
        assert len(data.get_fragments()) == len(data.versions()) == 1
    return text
