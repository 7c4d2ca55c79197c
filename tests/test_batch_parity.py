"""A step keeps the promises of the command: the same checks, the same columns, the same types."""

import base64
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg

from ppfr_ops import sample, sanitize_batch
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer, Context
from ppfr_ops.sanitize.batch import OPTIONS, BatchSanitizer
from ppfr_ops.sanitize.identity import with_release_key
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.source.plan import record_id
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


class Versatile(Anonymizer):
    """A method of which every option of a step changes something. It reads the face."""

    secrets: ClassVar[Mapping[str, str]] = {"identity-key": "whom it shows", "salt": "a salt"}
    wants = ("identity", "look")
    draws_faces = True

    identity: Literal["original", "virtual"] = "original"
    variation: float = 0.0
    strength: int = 2
    keep_look: str = ""

    @property
    def draw_size(self) -> int:
        return 1

    def needed_context(self) -> tuple[str, ...]:
        needed = super().needed_context()
        return needed if self.identity == "virtual" else needed[1:]

    def needed_secrets(self) -> tuple[str, ...]:
        return ("identity-key",) if self.identity == "virtual" else ()

    def anonymize_with(self, faces: Faces, draws: Any, context: Context) -> Faces:
        out = faces // self.strength
        out[:, 8:16] = np.clip(120 + 40 * draws, 0, 255).astype(np.uint8)[:, :, None, None]
        if self.identity == "virtual":
            for place, person in enumerate(context["identity"]):
                drawn = hashlib.sha256(self.secret("identity-key") + str(person).encode()).digest()
                out[place, 32:64] = drawn[0]
                out[place, 64:] = int(100 * self.variation)
        for place, seen in enumerate(context["look"] if self.keep_look else ()):
            out[place, 24:32] = hashlib.sha256(seen.encode()).digest()[0]
        if "salt" in self._secrets:
            out[:, 16:24] = self.secret("salt")[0]
        return out


class Another(Versatile):
    strength: int = 4


VERSATILE = "test_batch_parity:Versatile"
VIRTUAL = {"identity": "virtual", "identity_column": "who"}
UNSOUND: dict[str, Any] = {"identity": None, "method": "dp-eigenface"}
UNSOUND |= {"method_options": {"epsilon": "1", "claim": "peep", "noise": "laplace"}}
OTHERWISE: dict[str, tuple[dict[str, Any], Any]] = {
    "method": ({}, "test_batch_parity:Another"),
    "method_options": ({}, {"strength": "3"}),
    "secrets": ({}, {"salt": "SECRET"}),
    "fr": ({}, ("nobody=/nowhere.pt",)),
    "accept_unsound": (UNSOUND, True),
    "output_format": ({}, "png"),
    "quality": ({}, 40),
    "mark": ({}, False),
    "c2pa": ({}, "SECRET"),
    "c2pa_key": ({}, "SECRET"),
    "c2pa_training": ({}, "allowed"),
    "invisible_mark": ({}, "SECRET"),
    "align": ({}, "ffhq"),
    "metrics": ({"max_disclosure": 0.99}, "everything"),
    "max_disclosure": ({}, 0.001),
    "identity_column": ({}, "who"),
    "identity_key_file": (VIRTUAL, "SECRET"),
    "identity": ({"identity_column": "who"}, "virtual"),
    "variation": (VIRTUAL, 0.9),
    "keep_look": ({}, "light"),
    "look_epsilon": ({"keep_look": "light"}, 2.0),
    "seed": ({}, 8),
    "batch_size": ({}, 0),
}
"""Of every option of a step what has to be given besides, and another value, which changes what
comes of it: pictures, pseudonyms, reasons, or that it is refused."""

OF_A_RUN = {
    "where a run reads and writes": ("input", "output", "input_format", "mapping", "overwrite"),
    "an argument of a step by the same name": ("image_column", "keep_columns"),
    "how a run is cut into units": ("unit_rows", "limit", "draw_sample"),
    "what is asked of a dataset as a whole": (
        *("policy", "max_dead_letter_rate", "size_anonymity", "size_rounding", "groups"),
        *("privacy_budget", "privacy_account"),
    ),
    "a run's ledger": (
        *("check_shards", "retry_dead_letters", "incremental", "propagate_deletions"),
        *("allow_deletions", "single_writer", "signing_key", "discard_key"),
    ),
    "originals that are kept": ("vault", "vault_key"),
    "whole photographs; a step takes aligned faces": (
        *("photographs", "detections_out", "review_out", "verdicts", "accept_unreviewed"),
    ),
    "files as they lie in folders": (
        *("names", "output_form", "identity_from", "labels", "strict", "coarsen"),
    ),
}
"""Options that a step does not have, by the reason."""


def test_every_option_of_the_command_is_one_of_the_step_or_is_said_to_be_none() -> None:
    """Whoever adds an option decides: it shapes what a step does, or it is of a run's own."""
    assert set(OTHERWISE) == set(OPTIONS)
    of_a_run = [name for names in OF_A_RUN.values() for name in names]
    assert len(of_a_run) == len(set(of_a_run)) and not set(of_a_run) & set(OPTIONS)
    assert set(of_a_run) | set(OPTIONS) == set(SanitizeOptions.model_fields)
    # all of these are below one option of a run
    assert PhotographOptions in get_args(SanitizeOptions.model_fields["photographs"].annotation)


def outcomes(folder: Path, given: dict[str, Any]) -> list[Any]:
    """What comes of the same rows by the command and by the step: pictures, pseudonyms and reasons,
    or that it is refused."""
    usual = {"method": VERSATILE, "metrics": "none", "seed": 7, "identity": "original"}
    given = usual | given
    found: list[Any] = []
    ids: list[str] = []
    shutil.rmtree(folder / "out", ignore_errors=True)
    try:
        job = prepare(SanitizeOptions(input=f"{folder}/in", output=f"{folder}/out", **given))
        ledger = Ledger(job.options.output)
        ledger.open(job.settings)
        worker = Worker(with_release_key(job, ledger), 1)
        assert worker.process(0).state == "committed"
        ids = [record_id(job.plan.units[0].id, row) for row in range(ROWS)]
        data = pq.read_table(folder / "out/release/data")
        codes = pq.read_table(folder / "out/evidence/dead_letters")["code"].to_pylist()
        found.append((made_of(data), sorted(codes)))
    except (UserError, ValueError):
        found.append("refused")
    try:
        step = BatchSanitizer(id_column="id", **given)
        table = pq.read_table(folder / "in/a.parquet")
        done = step(table.append_column("id", pa.array(ids or list("abcd"))))
        codes = [code for code in done["dead_letter"].to_pylist() if code is not None]
        found.append((made_of(done), sorted(codes)))
    except UserError:
        found.append("refused")
    return found


def made_of(table: pa.Table) -> list[tuple[bytes, str | None]]:
    names = table["identity"].to_pylist() if "identity" in table.column_names else None
    pictures = [row and row["bytes"] for row in table["image"].to_pylist()]
    rows = zip(pictures, names or [None] * len(pictures), strict=True)
    return sorted(row for row in rows if row[0] is not None)


ROWS = 4


@pytest.mark.parametrize("name", sorted(OTHERWISE))
def test_an_option_does_the_same_in_both(folder: Path, name: str) -> None:
    (folder / "secret").write_bytes(bytes(range(48, 80)))
    (folder / "secret").chmod(0o600)
    beside, value = OTHERWISE[name]
    if value == "SECRET":
        value = str(folder / "secret")
    elif name == "secrets":
        value = {"salt": str(folder / "secret")}
    cells = [jpeg(face) for face in sample.faces(ROWS - 1)] + [b"no picture"]
    pq.write_table(pa.table({"image": cells, "who": list("aabb")}), folder / "in/a.parquet")
    before, after = outcomes(folder, beside), outcomes(folder, {**beside, name: value})
    if name == "accept_unsound":  # whose noise no seed gives again
        after = [(len(pictures), codes) for pictures, codes in after]
    assert before[0] == before[1] and after[0] == after[1]
    assert before[0] != after[0]


def test_a_step_takes_a_key(folder: Path) -> None:
    rows = {"image": [FACE]}
    made = [
        sanitize_batch(rows, method="pixelate", metrics="none", key=bytes([number]) * 32)
        for number in range(2)
    ]
    assert all(each["dead_letter"] == [None] for each in made)
    assert np.asarray(made[0]["image"]).shape == (1,)


def test_a_step_refuses_a_method_that_does_not_go_with_the_options() -> None:
    with pytest.raises(UserError, match="depend on no face"):
        BatchSanitizer(method="natural", identity_column="identity", max_disclosure=0.3)
