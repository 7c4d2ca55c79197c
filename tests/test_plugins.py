"""The steps for pipelines of one's own: the same pictures as the commands, and nothing lost."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import jpeg
from PIL import Image

import ppfr_ops
from ppfr_ops import BatchSanitizer, UserError, sanitize_batch
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent
METHOD: dict[str, Any] = {"method": "signed-field", "metrics": "basic", "seed": 7}


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Input pictures (one is none), and what a run of the command makes of them, by record id."""
    folder = tmp_path_factory.mktemp("command")
    pictures: list[bytes | None] = [*map(jpeg, faces(6)), b"no picture"]
    (folder / "in").mkdir()
    pq.write_table(pa.table({"image": pictures}), folder / "in" / "a.parquet")
    options = SanitizeOptions(input=f"{folder}/in", output=f"{folder}/out", **METHOD)
    job = prepare(options)
    Ledger(options.output).open(job.settings)
    assert Worker(job).process(0).state == "committed"
    ids = [f"u000000-{row:06d}" for row in range(7)]
    # Outside, records have other ids and another order; a picture is known by its bytes.
    (path,) = folder.glob("out/release/data/*.parquet")
    published = {row["image"]["bytes"] for row in pq.read_table(path).to_pylist()}
    assert len(published) == 6
    return {"record_id": ids, "image": pictures, "published": published}


def test_function_over_table_and_dict(by_command: dict[str, Any]) -> None:
    columns = {name: by_command[name] for name in ("record_id", "image")}
    columns["age"] = list(range(7))
    columns["secret"] = ["Jane Doe"] * 7
    options = {**METHOD, "id_column": "record_id", "keep_columns": ["age"]}
    done = sanitize_batch(pa.table(columns), **options)
    assert done.column_names == ["record_id", "image", "age", "dead_letter"]
    assert done["dead_letter"].to_pylist() == [None] * 6 + ["not_an_image"]
    assert done["age"].to_pylist() == [*range(6), None]
    assert {row["image"]["bytes"] for row in done.to_pylist()[:6]} == by_command["published"]
    assert done["image"][6].as_py() is None
    assert sanitize_batch(columns, **options) == done.to_pydict()


def test_pixels_and_images_are_pictures_too() -> None:
    drawn = faces(2)
    options = {"method": "pixelate", "metrics": "none", "output_format": "png", "id_column": "id"}
    kinds: list[list[Any]] = [
        list(drawn),
        [Image.fromarray(face) for face in drawn],
        [{"bytes": ppfr_ops.Encoding("png").encode(face), "path": "Jane"} for face in drawn],
    ]
    found = [sanitize_batch({"id": ["a", "b"], "image": kind}, **options) for kind in kinds]
    assert found[0]["dead_letter"] == [None, None]
    assert found[0] == found[1] == found[2]


def test_random_ids_and_what_is_refused(tmp_path: Path) -> None:
    table = pa.table({"image": [jpeg()], "person": ["Jane Doe"]})
    sanitize = BatchSanitizer(method="pixelate", metrics="none")
    assert sanitize(table)["record_id"][0].as_py() != sanitize(table)["record_id"][0].as_py()
    with pytest.raises(UserError, match="'face'; there are: image, person"):
        BatchSanitizer(method="pixelate", image_column="face")(table)
    with pytest.raises(UserError, match="is not copied"):
        BatchSanitizer(method="pixelate", keep_columns=["image2"])(
            table.append_column("image2", table["image"])
        )
    for options in ({"qualty": 1}, {"quality": 0}, {"method": "nope"}):
        with pytest.raises(ValueError) as caught:
            BatchSanitizer(**options)
        assert "\n" not in str(caught.value)
    key = tmp_path / "key"
    key.write_text("0123456789abcdef")
    named = BatchSanitizer(
        method="pixelate", metrics="none", identity_column="person", identity_key_file=str(key)
    )(table)
    assert len(named["identity"][0].as_py()) == 64


@pytest.mark.parametrize(
    ("who", "same"),
    [
        ([1, "1", 1.0, None], [0, 0, 0, 3]),
        ([2**70, "ann", 2**70, float("nan")], [0, 1, 0, 3]),
        (["\ud800", "ann", "\ud800", b"ann"], [0, 1, 0, 1]),
    ],
)
def test_odd_values_cost_their_own_rows(who: list[Any], same: list[int]) -> None:
    rows = {"image": [jpeg()] * 4, "who": who, "age": [1, "x", 2**70, None]}
    options = {"method": "pixelate", "metrics": "none", "identity_column": "who"}
    done = sanitize_batch(rows, keep_columns=["age"], **options)
    assert done["dead_letter"] == [None, "unreadable_row", "unreadable_row", None]
    people = sanitize_batch(rows, **options)["identity"]
    assert [people.index(name) for name in people] == same
    assert done["age"] == [1, None, None, None]
    with pytest.raises(UserError, match="not of one length"):
        sanitize_batch(rows | {"who": ["ann"]}, **options)


def test_ids_tell_no_picture_and_no_person() -> None:
    for column in ("image", "who"):
        with pytest.raises(UserError, match="published"):
            BatchSanitizer(method="pixelate", id_column=column, identity_column="who")
    with pytest.raises(UserError, match="texts or numbers"):
        sanitize_batch({"image": [jpeg()], "copy": [jpeg()]}, method="pixelate", id_column="copy")


def test_tables_hold_pictures_in_other_ways() -> None:
    stack = np.stack(faces(2))
    kinds = [
        pa.FixedShapeTensorArray.from_numpy_ndarray(stack),
        pa.array([jpeg()] * 2, pa.binary_view()),
        pa.array([jpeg()] * 2).dictionary_encode(),
    ]
    for kind in kinds:
        done = sanitize_batch(pa.table({"image": kind}), method="pixelate", metrics="none")
        assert done["dead_letter"].null_count == 2
    for given in (bytearray(jpeg()), memoryview(jpeg()), np.frombuffer(jpeg(), np.uint8)):
        done = sanitize_batch({"image": [given]}, method="pixelate", metrics="none")
        assert done["dead_letter"] == [None]


def test_a_bad_row_of_a_later_batch_ends_no_map() -> None:
    """``datasets`` takes the types of columns from the first batch."""
    import datasets

    cells = [{"bytes": data, "path": None} for data in (jpeg(), jpeg(), b"x")]
    kinds = datasets.Features({"image": datasets.Image(decode=False)})
    done = datasets.Dataset.from_dict({"image": cells}, features=kinds).map(
        sanitize_batch,
        batched=True,
        batch_size=1,
        fn_kwargs={"method": "pixelate", "metrics": "none"},
        remove_columns=["image"],
    )
    assert list(done["dead_letter"]) == [None, None, "not_an_image"]


def test_measures_only_on_request() -> None:
    options: dict[str, Any] = {"method": "pixelate", "metrics": "basic"}
    table = pa.table({"image": [jpeg()]})
    assert "psnr" not in BatchSanitizer(**options)(table).column_names
    assert "psnr" in BatchSanitizer(with_metrics=True, **options)(table).column_names


def test_beam_transform(by_command: dict[str, Any]) -> None:
    import apache_beam as beam
    from apache_beam.testing.util import assert_that, equal_to

    from ppfr_ops.engines.beam import SanitizeFaces

    names = ("record_id", "image")
    rows = [
        dict(zip(names, row, strict=True))
        for row in zip(*(by_command[name] for name in names), strict=True)
    ]
    with beam.Pipeline() as pipeline:
        step = SanitizeFaces(id_column="record_id", batch_rows=4, **METHOD)
        done = pipeline | beam.Create(rows) | step
        pictures = done.published | beam.Map(lambda row: row["image"]["bytes"])
        assert_that(pictures, equal_to(sorted(by_command["published"])), label="published")
        letter = {"record_id": "u000000-000006", "dead_letter": "not_an_image"}
        assert_that(done.dead_letters, equal_to([letter]), label="dead")


def test_ray_class_as_an_actor_calls_it(by_command: dict[str, Any]) -> None:
    from ppfr_ops.engines.ray_data import SanitizeFaces

    step = SanitizeFaces(id_column="record_id", threads=1, **METHOD)
    names = ("record_id", "image")
    done = step(pa.table({name: by_command[name] for name in names}))
    assert {row["image"]["bytes"] for row in done.to_pylist()[:6]} == by_command["published"]
    broken = SanitizeFaces(method="nope", threads=1)  # Ray would start it for ever if it raised
    with pytest.raises(UserError, match="unknown method 'nope'"):
        broken(done)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["ray_data_step", "beam_step", "hugging_face"])
def test_examples(name: str, tmp_path: Path) -> None:
    """Each example, as a user runs it, outside the checkout."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), str(tmp_path / "out")]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if name == "hugging_face":
        import datasets

        found = datasets.load_from_disk(str(tmp_path / "out"))
        assert found.num_rows == 24 and set(found.column_names) == {
            "record_id",
            "image",
            "identity",
        }
        return
    files = sorted((tmp_path / "out").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in files])
    assert table.num_rows == 24 and {"record_id", "image", "identity"} == set(table.column_names)
    assert len(set(table["record_id"].to_pylist())) == 24


def test_what_nobody_asks_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from ppfr_ops.sanitize import measuring

    asked: list[set[str]] = []
    measure = measuring.measure

    def watched(x: Any, y: Any, again: Any, only: Any) -> Any:
        asked.append({*only, *(() if again is None else ("draw_similarity",))})
        return measure(x, y, again, only)

    monkeypatch.setattr(measuring, "measure", watched)
    table = pa.table({"id": ["a", "b", "c"], "image": [jpeg(face) for face in faces(3)]})
    same: dict[str, Any] = {"method": "signed-field", "seed": 1, "id_column": "id"}
    done = BatchSanitizer(**same)(table)
    assert asked == []
    # What holds a record back is measured whether or not somebody wants the figures.
    BatchSanitizer(method="signed-field", max_disclosure=0.9)(table)
    assert asked.pop() == {"disclosure"}
    with_measures = BatchSanitizer(**same, with_metrics=True)(table)
    assert {"ssim", "disclosure", "draw_similarity"} <= asked.pop()
    assert with_measures["image"].equals(done["image"])
    limit = BatchSanitizer(method="signed-field", max_disclosure=0.001)(table)
    assert limit["dead_letter"].to_pylist() == ["too_disclosing"] * 3
