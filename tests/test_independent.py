"""A release is a function of key, labels, kept columns and options; not of the faces."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from independent import METHOD, SIZES, inline, options, records, released, rows_of, run, write

from ppfr_ops.cli.report import main as report_command
from ppfr_ops.contracts.manifest import ReleaseManifest
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding, decode
from ppfr_ops.imaging.look import EDGES
from ppfr_ops.methods.registry import create
from ppfr_ops.release.documents.modes import mode_of
from ppfr_ops.release.figures import open_release, singled_of
from ppfr_ops.release.verify import verify
from ppfr_ops.sanitize import dealing, looking, run_context, worker
from ppfr_ops.sanitize.conductor import conduct
from ppfr_ops.sanitize.events import ignore
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.store.account import Account
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import Ledger


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    run(options(write(folder / "in", rows_of(SIZES)), folder / "out"))
    return folder


# -- the property ---------------------------------------------------------------------------------


def test_other_faces_in_another_order_and_other_files_give_the_same_release(
    base: Path, tmp_path: Path
) -> None:
    source = write(tmp_path / "in", rows_of(SIZES), files=5, seed=7, order=3)
    run(options(source, tmp_path / "out", metrics="basic", unit_rows=None, draw_sample=3))
    run(options(base / "in", tmp_path / "again", metrics="basic", draw_sample=3))
    assert released(tmp_path / "out") == released(tmp_path / "again")
    files = released(base / "out")
    assert len(files) > 3 and len(records(base / "out")) >= sum(SIZES) + 2
    # whether anything is measured is an option, which the manifest tells; the data is the same
    same = released(tmp_path / "out")
    changed = {name for name in files if files[name] != same[name]}
    assert changed == {"manifest.json"}


@pytest.mark.parametrize("engine", ["local", "ray", "beam"])
def test_every_engine_gives_the_same_release(base: Path, tmp_path: Path, engine: str) -> None:
    source = write(tmp_path / "in", rows_of(SIZES), files=3, seed=9, order=4)
    script = "from ppfr_ops.cli.sanitize import main; main()"
    line = ["--input", str(source), "--output", str(tmp_path / "out"), "--method", METHOD]
    line += ["--identity-column", "identity", "--keep-column", "age", "--metrics", "none"]
    line += ["--size-anonymity", "3", "--seed", "5"]
    if engine == "beam":
        script = script.replace("cli.sanitize ", "cli.sanitize_beam ")
    else:
        line += ["--engine", engine, "--actors", "2"]
    path = {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(
        [sys.executable, "-c", script, *line],
        check=True,
        capture_output=True,
        env={**os.environ, **path},
    )
    assert released(tmp_path / "out") == released(base / "out")


def test_labels_enter_as_pseudonyms_alone(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody has another name, and the pseudonyms that the old names had."""
    named = [
        row | {"identity": row["identity"] and row["identity"][::-1].upper()}
        for row in rows_of(SIZES)
    ]
    source = write(tmp_path / "in", named, files=2, seed=3, order=8)
    run(options(source, tmp_path / "other"))
    assert not {row["identity"] for row in records(tmp_path / "other")} & {
        row["identity"] for row in records(base / "out")
    } - _nobody(base / "out")
    plain = run_context.pseudonyms

    def renamed(key: bytes) -> Callable[[str], str]:
        return lambda name: plain(key)(name[::-1].lower())

    monkeypatch.setattr(worker, "pseudonyms", renamed)
    run(options(source, tmp_path / "out"))
    assert released(tmp_path / "out") == released(base / "out")


def _nobody(output: Path) -> set[str]:
    """Pseudonyms of those who have no label, which are drawn."""
    with_label = {row["identity"] for row in records(output) if row["age"] < 70}
    return {row["identity"] for row in records(output)} - with_label


def test_a_method_that_peeks_gets_nothing_to_see(base: Path, tmp_path: Path) -> None:
    peeking = {"method_options": {"peeks": "true"}}
    other = write(tmp_path / "in", rows_of(SIZES), seed=2, order=2)
    run(options(base / "in", tmp_path / "a", **peeking))
    run(options(other, tmp_path / "b", **peeking))
    assert released(tmp_path / "a") == released(tmp_path / "b")


@pytest.mark.parametrize("what", ["the order of the rows", "their shards"])
def test_the_property_notices_what_breaks_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Mutations: a look that notes something of the face, shards that keep their source."""
    if what == "their shards":
        monkeypatch.setattr(dealing, "_sorting", lambda rows: np.arange(len(rows)))
        monkeypatch.setattr(dealing, "_ranks", lambda column: np.arange(len(column)))
    else:
        whole = looking.PublishNothing.tables

        def noting(self: Any, table: Any, results: Any) -> Any:
            results.items.sort(key=lambda item: int(item.pixels.sum()))
            made = whole(self, table, results)
            people = pa.array([*made.look["person"].to_pylist()[1:], b"x" * 32], pa.binary(32))
            look = made.look.set_column(1, made.look.schema.field(1), people)
            return type(made)(made.records, made.metrics, made.dead_letters, look=look)

        monkeypatch.setattr(looking.PublishNothing, "tables", noting)
    other = write(tmp_path / "in", rows_of(SIZES), files=3, seed=2, order=2)
    run(options(base / "in", tmp_path / "a"))
    run(options(other, tmp_path / "b"))
    assert released(tmp_path / "a") != released(tmp_path / "b")


# -- what a release holds -------------------------------------------------------------------------


def test_counts_add_up_and_sizes_are_shared(base: Path, tmp_path: Path) -> None:
    sizes = Counter(row["identity"] for row in records(base / "out"))
    shared = Counter(sizes.values())
    assert min(shared.values()) >= 3 and len(sizes) == 12
    told = json.loads((base / "out" / "evidence" / "manifest.json").read_text())["counts"]
    assert told["rows_in"] == sum(SIZES) + 2 and told["records"] == sizes.total()
    assert told["records"] - told["drawn_besides"] == told["rows_in"]
    assert not list(verify(str(base / "out")))
    # one picture is none of another
    pictures = {row["image"]["bytes"] for row in records(base / "out")}
    assert len(pictures) == sizes.total()


def test_shards_are_of_equal_size_and_their_rows_from_anywhere(tmp_path: Path) -> None:
    source = write(tmp_path / "in", rows_of([4] * 60), files=6)
    run(options(source, tmp_path / "out", unit_rows=40))
    shards = sorted((tmp_path / "out" / "release" / "data").iterdir())
    tables = [pq.read_table(shard) for shard in shards]
    assert max(t.num_rows for t in tables) - min(t.num_rows for t in tables) <= 1
    # of 60 people, 7 shards have most: by file they would have ten each
    assert min(len(set(table["identity"].to_pylist())) for table in tables) > 20
    assert {int(shard.stat().st_mtime) for shard in shards} == {315_532_800}
    ids = [row["record_id"] for row in records(tmp_path / "out")]
    assert len(set(ids)) == len(ids)


def test_the_plan_is_opened_once_however_many_shards_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in", rows_of([4] * 20), files=2)
    opened: list[str] = []
    plain = Ledger.reading

    def noting(ledger: Ledger, *parts: str, part: bool = False) -> Any:
        opened.extend(name for name in parts if name.endswith(".rows.parquet"))
        return plain(ledger, *parts, part=part)

    monkeypatch.setattr(Ledger, "reading", noting)
    run(options(source, tmp_path / "out", unit_rows=10))
    assert len(list((tmp_path / "out" / "release" / "data").iterdir())) > 5
    assert opened == ["0000.rows.parquet"]


@pytest.mark.parametrize("rounding", ["split", "drop"])
def test_other_ways_to_make_sizes_alike(base: Path, tmp_path: Path, rounding: str) -> None:
    run(options(base / "in", tmp_path / "out", size_rounding=rounding))
    sizes = Counter(row["identity"] for row in records(tmp_path / "out"))
    assert min(Counter(sizes.values()).values()) >= 3
    counts = json.loads((tmp_path / "out" / "evidence" / "manifest.json").read_text())["counts"]
    rows = counts["rows_in"] + counts["drawn_besides"]
    assert rows == counts["records"] + counts["left_out"]
    if rounding == "drop":
        assert counts["left_out"] and not counts["drawn_besides"] and len(sizes) == 12
    else:
        assert not counts["left_out"] and len(sizes) > 12
    assert not list(verify(str(tmp_path / "out")))


def test_kept_columns_stay_with_their_person(base: Path) -> None:
    people: dict[str, set[int]] = {}
    for row in records(base / "out"):
        people.setdefault(row["identity"], set()).add(row["age"])
    wanted: dict[Any, set[int]] = {}
    for place, row in enumerate(rows_of(SIZES)):
        wanted.setdefault(row["identity"] or place, set()).add(row["age"])
    assert sorted(map(sorted, people.values())) == sorted(map(sorted, wanted.values()))


def test_a_kept_look_goes_with_its_row_and_nothing_else_of_the_photo_does(tmp_path: Path) -> None:
    """Photos of other faces, in the same light and another order, give the same release."""
    rows = [{"identity": f"person {n // 3}", "light": n % 3} for n in range(8)]
    rows += [{"identity": "person 2", "light": 0}]
    for seed, part in enumerate((rows, rows[::-1])):
        rng = np.random.default_rng(seed)
        cells = []
        for row in part:
            face = rng.integers(0, 40, (112, 112, 3)) + 75 * row["light"] + 40
            cells.append({**row, "image": Encoding("png").encode(face.astype(np.uint8))})
        (tmp_path / f"in{seed}").mkdir()
        pq.write_table(pa.Table.from_pylist(cells), tmp_path / f"in{seed}/a.parquet")
        more = {"keep_look": "light", "keep_columns": ("light",), "output_format": "png"}
        run(options(tmp_path / f"in{seed}", tmp_path / f"out{seed}", **more))
    assert released(tmp_path / "out0") == released(tmp_path / "out1")
    published = records(tmp_path / "out0")
    for row in published:
        digits = decode(row["image"]["bytes"])[60, -len(EDGES) :, 0]
        assert digits.tolist() == [0, 0, 16, 8 * row["light"] + 8]
    assert len(published) == 9 and {row["light"] for row in published} == {0, 1, 2}
    made = ReleaseManifest.model_validate_json(released(tmp_path / "out0")["manifest.json"])
    words = "Of its photo a picture has the light, in a few bins, and nothing else."
    assert words in mode_of(made).words and words in mode_of(made).linked
    release = open_release(str(tmp_path / "out0"))
    bare = {**release.manifest.options, "keep_columns": []}
    manifest = release.manifest.model_copy(update={"options": bare})
    told = singled_of(Ledger(str(tmp_path / "out0")), manifest)
    assert told is not None and (told.people, told.singled_out, told.structure_k) == (3, 1, 1)


def noted_looks(output: Path, source: Path, **more: Any) -> dict[Any, list[str]]:
    """What a plan has of looks, by person; nothing is drawn."""

    def only_looks(job: Any, todo: list[int]) -> Any:
        if job.stage == "draw":
            raise KeyboardInterrupt
        yield from inline(job, todo)

    chosen = {"method": "natural", "keep_columns": (), "size_anonymity": 1, "keep_look": "light"}
    with pytest.raises(KeyboardInterrupt):
        conduct(options(source, output, **(chosen | more)), only_looks, "inline", ignore)
    found: dict[Any, list[str]] = {}
    for part in (output / "evidence/ledger/plan").glob("*.rows.parquet"):
        for row in pq.read_table(part).to_pylist():
            found.setdefault(row["identity"], []).append(row["look"])
    return {person: sorted(looks) for person, looks in found.items()}


def test_a_noised_look_is_drawn_once_and_paid_for_once(tmp_path: Path) -> None:
    """Whichever run notes it: a new one, in other units and another order, is told the same."""
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    source = write(tmp_path / "in", rows_of([6, 9, 30])[:-2])
    more = {"look_epsilon": 1.0, "identity_key_file": str(key), "seed": None}
    exact = noted_looks(tmp_path / "exact", source, **(more | {"look_epsilon": None}))
    first = noted_looks(tmp_path / "out", source, privacy_budget=50.0, **more)
    assert first != exact and {len(looks) for looks in first.values()} == {6, 9, 30}
    assert noted_looks(tmp_path / "out", source, privacy_budget=50.0, **more) == first
    sort_anew(source)
    again = noted_looks(tmp_path / "again", source, unit_rows=7, **more)
    named = [looks for looks in first.values() if len(looks) > 1]
    assert sorted(named) == sorted(looks for looks in again.values() if len(looks) > 1)
    balance = Account(Folder(str(tmp_path / "out"))).balance()
    assert sorted(balance.epsilon(who) for who in balance.losses) == [6, 9, 30]
    with pytest.raises(UserError, match=r"1 of 3 people would overdraw; .* would come to 30"):
        noted_looks(tmp_path / "over", source, privacy_budget=29.0, **more)


def test_a_release_says_what_it_tells_of_looks(tmp_path: Path) -> None:
    source, told = write(tmp_path / "in", rows_of([3])), tmp_path / "out"
    more = {"keep_look": "pose,light", "look_epsilon": 2.0, "keep_columns": ()}
    run(options(source, told, method="natural", size_anonymity=1, **more))
    made = ReleaseManifest.model_validate_json(released(told)["manifest.json"])
    assert made.method.private and made.method.figures["epsilon"] == 2
    assert "no other feature" in mode_of(made).words
    done = CliRunner().invoke(report_command, [str(told)])
    assert done.exit_code in (0, 3), done.output
    page = (told / "evidence" / "report.html").read_text()
    assert "epsilon, by the proof</th><td>2.0" in page
    assert "audit-privacy" not in page and "clip radius" not in page  # no picture shows the noise
    card = released(told)["README.md"].decode()
    assert "Epsilon 2, delta 0, of a record (replace one), by k-ary randomised response" in card
    assert "what they tell of a photo is bounded by epsilon 2, of a person by" in card
    assert "Nothing here depends on a photo but the look that a picture has of it" in card
    assert not list(verify(str(told)))


def sort_anew(source: Path) -> None:
    """The same rows in the same files, in another order."""
    for path in source.iterdir():
        table = pq.read_table(path)
        pq.write_table(table.take(list(range(table.num_rows))[::-1]), path)


def killed_after_one_unit(job: Any, todo: list[int]) -> Any:
    yield from inline(job, todo[:1])
    raise KeyboardInterrupt


OTHER_WAYS: dict[str, dict[str, Any]] = {
    "drawn": {},
    "changed": {"method": "pixelate", "size_anonymity": 1},
    "changed, owner's key": {"method": "pixelate", "size_anonymity": 1, "identity_key_file": "KEY"},
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_no_record_is_made_by_the_place_of_another_row(way: str, tmp_path: Path) -> None:
    """Killed after the first unit, the input sorted anew, the same command."""
    source = write(tmp_path / "in", rows_of([3, 4, 5]))
    more = {"unit_rows": 5} | OTHER_WAYS[way]
    if "identity_key_file" in more:
        more["identity_key_file"] = str(tmp_path / "key")
        (tmp_path / "key").write_text("k" * 40)
        (tmp_path / "key").chmod(0o600)
    chosen = options(source, tmp_path / "out", **more)
    with pytest.raises(KeyboardInterrupt):
        conduct(chosen, killed_after_one_unit, "inline", ignore)
    whole = {path: path.read_bytes() for path in source.iterdir()}
    sort_anew(source)
    with pytest.raises(UserError, match="1 of the units that are done hold other rows now"):
        conduct(chosen, inline, "inline", ignore)
    for path, data in whole.items():
        path.write_bytes(data)  # with another time
    done = run(chosen)
    assert done.counts is not None and done.counts.rows_in == 14
    # what is done is bound to its rows as well: a mapping would name others
    assert run(chosen).counts == done.counts
    sort_anew(source)
    with pytest.raises(UserError, match="is not what it was"):
        conduct(chosen, inline, "inline", ignore)


def test_what_cannot_be_read_is_a_dead_letter_and_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "in", rows_of([5, 5, 5]))
    table = pq.read_table(source / "part-0.parquet").to_pylist()
    table[3]["image"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(table), source / "part-0.parquet")
    done = run(options(source, tmp_path / "out", max_dead_letter_rate=0.5))
    assert done.counts is not None
    assert done.counts.dead_letters_by_code == {"not_an_image": 1}
    assert done.counts.rows_in + done.counts.drawn_besides == done.counts.records + 1
    assert not list(verify(str(tmp_path / "out")))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_disclosure": 0.3}, "depend on no face"),
        ({"vault": "v", "vault_key": "k"}, "keep the input"),
        ({"discard_key": True, "mapping": "m"}, "give one of them"),
        ({"method": "blur", "discard_key": True}, "held against them"),
        ({"keep_look": "light", "discard_key": True}, "or keep a look, can be held"),
        ({"method": "blur", "keep_look": "pose"}, "--keep-look: method blur draws no look"),
        ({"method": "blur", "look_epsilon": 1.0}, "--look-epsilon: method blur draws no look"),
        ({"method": "natural", "look_epsilon": 1.0}, "look_epsilon goes with keep_look"),
        ({"method": "natural", "keep_look": "hair"}, "there is no part 'hair'; there are pose"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    base: Path, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        prepare(options(base / "in", tmp_path / "out", **more))


def test_the_owner_learns_who_is_whom_and_nothing_of_records(base: Path, tmp_path: Path) -> None:
    source, output = base / "in", tmp_path / "out"
    shutil.copytree(base / "out", output)
    run(options(source, output, mapping=str(tmp_path / "map.parquet")))
    mapping = pq.read_table(tmp_path / "map.parquet").to_pylist()
    assert len(mapping) == sum(SIZES) + 2
    people = {row["identity"] for row in records(output)}
    assert {row["identity"] for row in mapping if row["identity"]} < people


def test_methods_say_whether_they_read_faces() -> None:
    virtual = {"identity": "virtual"}
    assert not create("stochastic-local", {**virtual, "variation": "0"}).reads_faces
    assert create("stochastic-local", {**virtual, "variation": "0.1"}).reads_faces
    assert create("stochastic-local", {}).reads_faces
    assert not create("dp-virtual", {"epsilon": "0"}).reads_faces
    assert create("dp-virtual", {"epsilon": "1"}).reads_faces and create("blur", {}).reads_faces
