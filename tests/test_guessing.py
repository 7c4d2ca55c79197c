"""Nothing in a release but the picture itself tells which original a record was made of.

``PPFR_GUESS=1000`` plays it with a thousand candidates, as docs/threat-model.md reports it.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from guesser import Seen, better_than_twice_chance, guesses, hits

from ppfr_ops.contracts.manifest import LEAST_RECORDS, Statistic, coarse_mean
from ppfr_ops.contracts.metrics import METRICS
from ppfr_ops.imaging.codec import Encoding, decode
from ppfr_ops.methods.registry import methods
from ppfr_ops.release.documents.cards import Publication, as_json, croissant, dataset_card
from ppfr_ops.release.figures import open_release
from ppfr_ops.release.publish import write_documents
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.finish import finish
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

COUNT = int(os.environ.get("PPFR_GUESS", "36"))
NAME = "Jane_Doe"
PICTURES = [
    name
    for name, kind in methods().items()
    if kind.kind == "picture"
    and not any(f.is_required() for f in kind.model_fields.values())
    and not kind().needed_context()
]


def publish(folder: Path, method: str) -> tuple[list[bytes], Path]:
    encoded = [Encoding().encode(face) for face in faces(COUNT, seed=8)]
    cells = [{"bytes": data, "path": f"{NAME}_{row}.jpg"} for row, data in enumerate(encoded)]
    (folder / "in").mkdir()
    pq.write_table(pa.table({"image": cells}), folder / "in" / f"{NAME}.parquet")
    options = SanitizeOptions(
        input=str(folder / "in"),
        output=str(folder / "out"),
        method=method,
        metrics="basic",
        unit_rows=max(6, COUNT // 4),
        max_dead_letter_rate=1,
        identity="original" if method == "stochastic-local" else None,
    )
    job = prepare(options)
    ledger = Ledger(options.output)
    ledger.open(job.settings)
    worker = Worker(job, 1)
    states = [worker.process(number).state for number in range(len(job.plan.units))]
    assert set(states) == {"committed"}
    finish(job, "test 1")
    release = open_release(options.output)
    card, page = dataset_card(release, Publication("x")), croissant(release, Publication("x"))
    write_documents(ledger, {"README.md": card, "croissant.json": as_json(page)}, None)
    return encoded, folder / "out"


@pytest.fixture(scope="module", params=PICTURES)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("guess")
    encoded, output = publish(folder, request.param)
    listed = open_release(str(output)).shards
    shards = [pq.read_table(output / "release" / file.path) for file in listed]
    table = pa.concat_tables(shards)
    ids, rows = Ledger(str(output)).ids, max(6, COUNT // 4)
    units = -(-COUNT // rows)
    cut = [COUNT * unit // units for unit in range(units + 1)]
    outside = {}
    for unit in range(units):
        for row in range(cut[unit + 1] - cut[unit]):
            outside[ids.record(f"u{unit:06d}-{row:06d}")] = cut[unit] + row
    truth = [outside[record] for record in table["record_id"].to_pylist()]
    pictures = np.stack([decode(cell["bytes"].as_py()) for cell in table["image"]])
    table = table.drop_columns(["image"])
    originals = np.stack([decode(data) for data in encoded])
    return Seen(originals, encoded, table, pictures, truth, output / "release")


def test_the_guesser_can_guess(seen: Seen) -> None:
    """From the owner's evidence he does, and from rows in the order of the source."""
    metrics = pa.concat_tables(
        [pq.read_table(path) for path in (seen.release.parent / "evidence/metrics").iterdir()]
    )
    order = {record: row for row, record in enumerate(metrics["record_id"].to_pylist())}
    rows = [order[record] for record in seen.table["record_id"].to_pylist()]
    told = metrics.select(["record_id", "psnr"]).take(rows)
    with_figures = Seen(seen.candidates, seen.encoded, told, seen.pictures, seen.truth)
    found = {name: hits(guess, seen.truth) for name, guess in guesses(with_figures)}
    assert found["psnr by psnr"] >= 0.9 * len(seen.truth), found
    sorted_ = Seen(seen.candidates, seen.encoded, told, seen.pictures, sorted(seen.truth))
    ordered = {name: hits(guess, sorted_.truth) for name, guess in guesses(sorted_)}
    assert better_than_twice_chance(ordered["order of the rows"], len(seen.truth))


def test_no_figure_and_no_order_singles_anybody_out(seen: Seen) -> None:
    found = {name: hits(guess, seen.truth) for name, guess in guesses(seen)}
    assert len(found) >= 7
    print({name: f"{count}/{len(seen.truth)}" for name, count in found.items()})
    for name, count in found.items():
        assert not better_than_twice_chance(count, len(seen.truth)), (name, count)


def test_no_byte_of_the_source_is_in_any_file(seen: Seen) -> None:
    assert seen.release is not None
    marks = {f"{NAME}".encode(), b"u000000", b"-000001"}
    for row, data in enumerate(seen.encoded):
        digest = hashlib.sha256(data)
        marks |= {digest.hexdigest().encode(), digest.digest(), f"{NAME}_{row}".encode()}
        marks.add(data[-80:-16])
    for path in seen.release.rglob("*"):
        assert NAME not in path.name
        if path.is_file():
            raw = path.read_bytes()
            assert not [mark for mark in marks if mark in raw], path
            assert path.suffix != ".parquet" or path.stat().st_mtime % 86_400 == 0
    declared = {item.name for kind in methods().values() for item in kind.record_figures}
    others = set(seen.table.column_names) - {"record_id"} - declared
    assert not others, "another column: is it a figure of the original?"


def test_means_hide_every_single_record() -> None:
    """Who knows all records but one learns of that one no more than its range."""
    for name, metric in METRICS.items():
        width = 100.0 if name == "psnr" else 2.0
        assert LEAST_RECORDS * metric.step >= width
    assert coarse_mean("psnr", Statistic(count=99, mean=11.26, min=0, max=1)) is None
    assert coarse_mean("psnr", Statistic(count=100, mean=11.26, min=0, max=1)) == 11
    assert coarse_mean("id_cosine_x", Statistic(count=100, mean=0.513, min=0, max=1)) == 0.52
    assert coarse_mean("faces", Statistic(count=100, mean=2, min=0, max=9)) is None
