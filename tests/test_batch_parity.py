"""A step keeps the promises of the command: the same checks, the same columns, the same types."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg

from ppfr_ops import sample, sanitize_batch
from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.batch import OPTIONS, BatchSanitizer
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

FACE = sample.faces(1)[0]
PICTURES = {
    "base64": base64.b64encode(jpeg(FACE)).decode(),
    "hex": jpeg(FACE).hex(),
    "data url": "data:image/jpeg;base64," + base64.b64encode(jpeg(FACE)).decode(),
}
BINARY = {
    "bytes": pa.array([jpeg(FACE)]),
    "list of uint8": pa.array([list(jpeg(FACE))], pa.list_(pa.uint8())),
    "pixels": pa.array([FACE.reshape(-1).tolist()], pa.list_(pa.uint8())),
    "struct with bytes": pa.array([{"b": jpeg(FACE)}]),
    "list of int8": pa.array([[1, 2]], pa.list_(pa.int8())),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


def by_command(folder: Path, table: pa.Table, **more: Any) -> tuple[list[Any], list[str]]:
    """Values that are kept, and codes of dead letters; the same arguments as of the step."""
    pq.write_table(table, folder / "in/a.parquet")
    options = SanitizeOptions(
        input=str(folder / "in"), output=str(folder / "out"), method="pixelate", **more
    )
    job = prepare(options)
    Ledger(options.output).open(job.settings)
    assert Worker(job, 1).process(0).state == "committed"
    data = pq.read_table(folder / "out/release/data")
    kept = [data[name].to_pylist() for name in options.keep_columns]
    dead = sorted((folder / "out/evidence/dead_letters").glob("*"))
    return kept, pq.read_table(dead[0])["code"].to_pylist() if dead else []


def table_of(column: pa.Array) -> pa.Table:
    return pa.table({"image": [jpeg(FACE)], "kept": column})


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_in_letters_is_kept_by_neither(folder: Path, kind: str) -> None:
    table = table_of(pa.array([PICTURES[kind]]))
    kept, dead = by_command(folder, table, metrics="none", keep_columns=("kept",))
    assert kept == [[]] and dead == ["kept_picture"]
    rows = BatchSanitizer(method="pixelate", metrics="none", keep_columns=("kept",))(table)
    assert rows["kept"].to_pylist() == [None] and rows["image"].to_pylist() == [None]
    assert rows["dead_letter"].to_pylist() == ["kept_picture"]


@pytest.mark.parametrize("kind", BINARY)
def test_a_type_that_may_hide_a_picture_is_refused_by_both(folder: Path, kind: str) -> None:
    table = table_of(BINARY[kind])
    with pytest.raises(UserError, match="is not copied"):
        by_command(folder, table, metrics="none", keep_columns=("kept",))
    step = BatchSanitizer(method="pixelate", metrics="none", keep_columns=("kept",))
    with pytest.raises(UserError, match="is not copied"):
        step(table)


SOUND = {
    "number": pa.array([7]),
    "text": pa.array(["a word"]),
    "dictionary": pa.array(["a"]).dictionary_encode(),
    "template": pa.array([[0.5] * 512], pa.list_(pa.float32())),
    "struct": pa.array([{"x": 1, "y": ["a"]}]),
}


@pytest.mark.parametrize("kind", SOUND)
def test_what_one_keeps_the_other_keeps(folder: Path, kind: str) -> None:
    table = table_of(SOUND[kind])
    kept, dead = by_command(folder, table, metrics="none", keep_columns=("kept",))
    rows = BatchSanitizer(method="pixelate", metrics="none", keep_columns=("kept",))(table)
    assert not dead and rows["kept"].to_pylist() == kept[0] == SOUND[kind].to_pylist()


WRONG: dict[str, dict[str, Any]] = {
    "identity kept": {"identity_column": "who", "keep_columns": ("who",)},
    "reserved": {"keep_columns": ("image",)},
    "record id": {"keep_columns": ("record_id",)},
    "unknown method": {"method": "none such"},
    "unknown option": {"method_options": {"none_such": "1"}},
    "quality": {"quality": 101},
    "level": {"metrics": "everything"},
    "format": {"output_format": "gif"},
    "disclosure": {"max_disclosure": 1.5},
    "bound on a private method": {
        "method": "dp-eigenface",
        "max_disclosure": 0.5,
        "accept_unsound": True,
    },
    "two models of a name": {"fr": ("a=x.onnx", "a=y.onnx")},
    "key": {"identity_key_file": "/nowhere"},
    "secret": {"secrets": {"none-such": "/nowhere"}},
    "identity": {"identity": "virtual"},
    "variation": {"variation": 2.0},
    "batch": {"batch_size": 0},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_one_refuses_the_other_refuses(folder: Path, what: str) -> None:
    table = pa.table({"image": [jpeg(FACE)], "who": ["somebody"], "age": [1]})
    pq.write_table(table, folder / "in/a.parquet")
    given = {"method": "pixelate", **WRONG[what]}
    with pytest.raises((UserError, ValueError)):
        prepare(SanitizeOptions(input=str(folder / "in"), output=str(folder / "o"), **given))
    with pytest.raises(UserError):
        BatchSanitizer(**given)


def test_every_option_of_the_command_is_one_of_the_step_or_is_said_to_be_none() -> None:
    """Whoever adds an option decides: it shapes what a step does, or it is of a run's own."""
    of_a_run = {
        *("input", "output", "input_format", "image_column", "keep_columns", "unit_rows", "limit"),
        *("discard_key", "privacy_budget", "privacy_account", "draw_sample", "policy"),
        *("max_dead_letter_rate", "check_shards", "overwrite", "retry_dead_letters"),
        *("incremental", "propagate_deletions", "allow_deletions", "single_writer", "mapping"),
        *("signing_key", "vault", "vault_key", "photographs", "detections_out", "review_out"),
        *("verdicts", "size_anonymity", "size_rounding", "names", "output_form"),
        *("accept_unreviewed", "coarsen", "groups", "identity_from", "labels", "strict"),
    }
    left = set(SanitizeOptions.model_fields) - of_a_run - set(OPTIONS)
    assert not left, f"an option of a step (OPTIONS), or of a run only (here)? {sorted(left)}"


def test_a_step_takes_a_key(folder: Path) -> None:
    rows = {"image": [FACE]}
    made = [
        sanitize_batch(rows, method="pixelate", metrics="none", key=bytes([number]) * 32)
        for number in range(2)
    ]
    assert all(each["dead_letter"] == [None] for each in made)
    assert np.asarray(made[0]["image"]).shape == (1,)
