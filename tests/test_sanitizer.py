"""A unit's rows become records, metrics and dead letters, each row exactly one of them."""

import hashlib
import hmac
import io
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from pictures import DEAD, FACE, HANDLED, PLANTED, jpeg
from PIL import Image
from pydantic import Field

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.policy import parse
from ppfr_ops.contracts.records import records_schema
from ppfr_ops.draws import seeded_draws
from ppfr_ops.imaging import measures as metrics
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding, decode
from ppfr_ops.lab.evaluate.measured import likeness
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import create, methods
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.aligned import AlignedFaces
from ppfr_ops.sanitize.items import Item
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.measuring import SecondDraw, measure
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.run_context import RunContext, pseudonyms
from ppfr_ops.sanitize.sanitizer import Sanitizer
from ppfr_ops.source.units import Columns, Plan, Unit
from ppfr_ops.store.ledger import Tables

KEY = b"a key of the owner"


def sanitizer_of(*parts: Any, **named: Any) -> Sanitizer[Item]:
    return Sanitizer(AlignedFaces(RunContext(*parts, **named)))


def unit_table(pictures: list[bytes | None], **columns: pa.Array) -> pa.Table:
    count = len(pictures)
    return pa.table(
        {
            "record_id": [f"u-{row:06d}" for row in range(count)],
            "image": pa.array(pictures, pa.large_binary()),
            "read_error": pa.nulls(count, pa.string()),
            **columns,
        }
    )


def originals(count: int) -> list[bytes | None]:
    return [jpeg(face) for face in faces(count, seed=5)]


class Fails(Anonymizer):
    """Raises on dark faces, with the face in the message, as libraries do."""

    limit: float = Field(100.0)

    def anonymize(self, batch: Faces, draws: NDArray[np.float32]) -> Faces:
        if (batch.mean((1, 2, 3)) < self.limit).any():
            raise RuntimeError(f"cannot: {batch.tobytes()[:100]!r} of Jane Doe")
        return 255 - batch


def test_every_row_is_published_or_a_dead_letter_in_order() -> None:
    cases = [*HANDLED.values(), *(make for make, _ in DEAD.values())]
    pictures = [pair for make in cases for pair in (jpeg(), make())]
    result = sanitizer_of(create("pixelate"), Encoding(), batch_size=7)(unit_table(pictures), "u")
    published = result.records["record_id"].to_pylist()
    dead = result.dead_letters["record_id"].to_pylist()
    assert published == sorted(published) and dead == sorted(dead)
    assert sorted(published + dead) == [f"u-{row:06d}" for row in range(len(pictures))]
    assert len(published) == len(cases) + len(HANDLED)
    codes = [code for _, code in DEAD.values()]
    assert result.dead_letters["code"].to_pylist() == codes
    assert result.metrics["record_id"] == result.records["record_id"]
    assert result.records.schema.equals(records_schema(), check_metadata=True)
    assert result.metrics.schema.equals(metrics_schema(), check_metadata=True)
    assert result.dead_letters.schema.equals(DEAD_LETTERS_SCHEMA, check_metadata=True)


def test_no_metadata_no_name_and_no_byte_of_a_picture_in_any_output() -> None:
    pictures = [make() for make in HANDLED.values()] + [make() for make, _ in DEAD.values()]
    result = sanitizer_of(create("signed-field"), Encoding())(unit_table(pictures), "u")
    for table in (result.records, result.metrics, result.dead_letters):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        assert PLANTED not in sink.getvalue().to_pybytes()
    for image in result.records["image"].to_pylist():
        with Image.open(io.BytesIO(image["bytes"])) as opened:
            assert not opened.getexif() and "comment" not in opened.info


@pytest.mark.parametrize(
    ("method", "encoding"),
    list(
        itertools.product(
            [
                name
                for name, kind in methods().items()
                if name != "stochastic-local"
                and not kind.secrets
                and not any(field.is_required() for field in kind.model_fields.values())
            ],
            [Encoding("jpeg", 100), Encoding("png"), Encoding("webp", 100)],
        )
    ),
    ids=str,
)
def test_no_output_is_an_input_under_any_options(method: str, encoding: Encoding) -> None:
    pictures = [encoding.encode(face) for face in faces(4, seed=1)]
    result = sanitizer_of(create(method), encoding, level="none")(unit_table(list(pictures)), "u")
    published = [image["bytes"] for image in result.records["image"].to_pylist()]
    assert len(published) == 4 and not set(published) & set(pictures)
    for data, original in zip(published, pictures, strict=True):
        seen, truth = encoding.decode(data).astype(int), encoding.decode(original).astype(int)
        assert np.abs(seen - truth).mean() > 3


def test_metrics_are_those_of_the_bytes_in_the_shard() -> None:
    pictures = originals(3)
    sanitizer = sanitizer_of(create("blur", {"sigma": "3"}), Encoding(quality=40))
    result = sanitizer(unit_table(pictures), "u")
    x = np.stack([decode(data) for data in pictures if data])
    y = np.stack([decode(image["bytes"]) for image in result.records["image"].to_pylist()])
    for name, values in measure(x, y, SecondDraw(np.arange(3), None)).items():
        np.testing.assert_allclose(result.metrics[name].to_numpy(), values, atol=1e-4)


def test_seeded_draws_do_not_depend_on_batches_or_slices() -> None:
    table = unit_table(originals(7))

    def run(size: int) -> Sanitizer[Item]:
        return sanitizer_of(
            create("signed-field"), Encoding(), draws=seeded_draws(7), batch_size=size, level="none"
        )

    whole = run(3)(table, "u").records
    assert whole == run(100)(table, "u").records
    parts = [run(2)(table.slice(start, 3), "u").records for start in (0, 3, 6)]
    assert whole == pa.concat_tables(parts)


def test_system_draws_differ_every_time() -> None:
    sanitizer = sanitizer_of(create("signed-field"), Encoding(), level="none")
    table = unit_table(originals(2))
    assert sanitizer(table, "u").records != sanitizer(table, "u").records


def test_a_method_that_fails_on_one_face_costs_that_face_only() -> None:
    pictures = [jpeg(np.full_like(FACE, value)) for value in (200, 30, 201, 202, 203)]
    result = sanitizer_of(Fails(), Encoding())(unit_table(list(pictures)), "u")
    assert result.records.num_rows == 4
    letter = result.dead_letters.to_pylist()[0]
    assert (letter["record_id"], letter["code"]) == ("u-000001", "method_failed")
    assert "Jane" not in letter["message"] and "\\x" not in letter["message"]


def test_identities_leave_as_keyed_pseudonyms_and_kept_columns_as_they_are() -> None:
    pictures = [*originals(2), b"broken", *originals(1)]
    table = unit_table(
        pictures,
        **{
            "identity": pa.array(["Jane", "John", "Jane", None]),
            "keep.age": pa.array([1, 2, 3, None], pa.int16()),
        },
    )
    sanitizer = sanitizer_of(
        create("pixelate"),
        Encoding(),
        keep=[pa.field("age", pa.int16())],
        pseudonymize=pseudonyms(KEY),
        level="basic",
    )
    records = sanitizer(table, "u").records
    expected = [
        hmac.new(KEY, f"identity|{name}".encode(), hashlib.sha256).hexdigest()
        for name in ("Jane", "John")
    ]
    assert records["identity"].to_pylist() == [*expected, None]
    assert records["age"].to_pylist() == [1, 2, None]


def test_levels_leave_out_what_they_say() -> None:
    table = unit_table(originals(2))

    def measured(level: str) -> set[str]:
        result: Tables = sanitizer_of(create("blur"), Encoding(), level=level)(table, "u")
        return {n for n in result.metrics.column_names if not result.metrics[n].null_count}

    quick = {"record_id", "ssim", "ms_ssim", "psnr", "lowfreq_corr"}
    assert measured("full") == quick | {"disclosure", "draw_similarity"}
    assert measured("basic") == quick
    assert measured("none") == {"record_id"}


def test_an_empty_unit_is_fine() -> None:
    result = sanitizer_of(create("blur"), Encoding())(unit_table([]), "u")
    assert result.records.num_rows == result.metrics.num_rows == result.dead_letters.num_rows == 0


def test_ssim_agrees_with_scikit_image_and_ms_ssim_with_its_definition() -> None:
    from skimage.metrics import structural_similarity

    x, y = faces(2, seed=8)
    a, b = (torch.from_numpy(f).permute(2, 0, 1)[None].double() / 255 for f in (x, y))
    single, multi = metrics.ssim_and_ms_ssim(a, b)
    options = {"channel_axis": 2, "data_range": 255, "gaussian_weights": True, "sigma": 1.5}
    theirs = structural_similarity(x, y, use_sample_covariance=False, full=True, **options)[1]
    assert single.item() == pytest.approx(theirs[5:-5, 5:-5].mean(), abs=1e-4)
    assert single.item() == pytest.approx(metrics.ssim(a, b).item(), abs=1e-6)
    one, whole = metrics.ssim_and_ms_ssim(a, a)
    assert one.item() == pytest.approx(1) and whole.item() == pytest.approx(1)
    assert 0 <= multi.item() < 1
    with pytest.raises(ValueError, match="at least 88 px"):
        metrics.ssim_and_ms_ssim(a[..., :80], b[..., :80])


def test_lowfreq_corr_sees_shading_and_its_sign_and_not_detail() -> None:
    a = torch.from_numpy(faces(4, seed=8)).permute(0, 3, 1, 2).float() / 255
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    assert (metrics.lowfreq_corr(a, a) > 0.999).all()
    assert (metrics.lowfreq_corr(a, 1 - a) < -0.999).all()
    assert (metrics.lowfreq_corr(a, a + noise) > 0.99).all()
    assert (metrics.lowfreq_corr(a, torch.zeros_like(a)) == 0).all()


def test_a_measure_has_one_definition() -> None:
    """What a record's metrics say of a picture, and what an evaluation says of it."""
    originals = faces(4, seed=8)
    published = originals[::-1, :, ::-1].copy()
    record, evaluated = measure(originals, published, None), likeness(originals, published)
    assert set(evaluated) == {"ssim", "psnr", "lowfreq_corr"}
    for name, values in evaluated.items():
        np.testing.assert_allclose(record[name], values, rtol=1e-5)
        assert np.std(values) > 0


def test_operations_load_no_engine() -> None:
    code = (
        "import sys, ppfr_ops.sanitize.worker, ppfr_ops.sanitize.finish\n"
        "assert not {'ray', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class _Shy(Anonymizer):
    """Shows the face unless its draw says otherwise."""

    name = "shy"
    disclosure_limit = 0.6

    @property
    def draw_size(self) -> int:
        return 1

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        noise = np.random.default_rng(0).integers(0, 256, faces.shape, np.uint8)
        return np.where(draws[:, :, None, None] > 0.5, noise, faces).astype(np.uint8)


def test_what_shows_too_much_is_drawn_again_and_else_buried() -> None:
    pictures = faces(40, seed=3)
    table = unit_table([Encoding("png").encode(face) for face in pictures])
    sanitizer = sanitizer_of(_Shy(), Encoding(), draws=seeded_draws(5))
    result = sanitizer(table, "u")
    shown = np.asarray(result.metrics["disclosure"])
    assert (shown <= 0.6).all() and len(shown) > 25  # five draws, each good with 31 %
    codes = result.dead_letters["code"].to_pylist()
    assert set(codes) <= {"too_disclosing"} and len(shown) + len(codes) == 40
    loose = sanitizer_of(_Shy(), Encoding(), draws=seeded_draws(5), max_disclosure=1.0)(table, "u")
    assert len(loose.records) == 40 and np.asarray(loose.metrics["disclosure"]).max() > 0.9
    for record, value in zip(result.records.to_pylist(), shown, strict=True):
        picture = Encoding.decode(record["image"]["bytes"])
        row = int(record["record_id"][-6:])
        again = measure(pictures[row][None], picture[None])
        assert again["disclosure"][0] == pytest.approx(value, abs=1e-4)


def test_nothing_phones_home_or_leaves_files_behind(tmp_path: Path) -> None:
    code = "import ppfr_ops.sanitize.worker, onnxruntime; onnxruntime.InferenceSession"
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in left if "matplotlib" not in str(path)]


def test_two_draws_are_compared_on_a_sample_and_the_rest_of_the_figures_are_of_all() -> None:
    table = unit_table(originals(10))
    run = {"draws": seeded_draws(3), "batch_size": 4}
    every = sanitizer_of(create("signed-field"), Encoding(), **run)(table, "u")
    some = sanitizer_of(create("signed-field"), Encoding(), sample_every=3, **run)(table, "u")
    assert some.records == every.records
    assert some.metrics.drop(["draw_similarity"]) == every.metrics.drop(["draw_similarity"])
    found = some.metrics["draw_similarity"].to_pylist()
    assert [row for row, value in enumerate(found) if value is not None] == [0, 3, 6, 9]
    whole = every.metrics["draw_similarity"].to_pylist()
    assert found[::3] == pytest.approx(whole[::3], abs=1e-5) and None not in whole


def test_places_of_what_is_compared_follow_their_faces_into_a_redraw() -> None:
    again = SecondDraw(np.array([1, 3, 4]), faces(3))
    part = again.of([0, 3, 4])
    assert part.places.tolist() == [1, 2]
    assert part.faces is not None and np.array_equal(part.faces, faces(3)[1:])
    assert SecondDraw(np.array([2]), None).of([2]).places.tolist() == [0]


def test_how_large_the_sample_is(tmp_path: Path) -> None:
    options = SanitizeOptions(input=str(tmp_path), output=str(tmp_path / "out"))
    unit = Unit("u000000", "parquet", ("a",), 0, 2600)

    def every(rows: int, **more: Any) -> tuple[int, int]:
        plan = Plan("", "parquet", (replace(unit, stop=rows),), Columns(), ())
        job = Job(options.model_copy(update=more), plan, None, "", {})
        return job.sample_every, job.look_every

    found = [every(rows) for rows in (10, 256, 600, 2600, 10_000)]
    assert found == [(1, 1), (1, 4), (2, 9), (10, 16), (16, 16)]
    assert every(10_000, draw_sample=1) == (1, 1)
    policy = parse("record: {draw_similarity: '<= 0.9'}")
    plan = Plan("", "parquet", (unit,), Columns(), ())
    assert Job(options, plan, None, "", {}, policy).sample_every == 1
