"""Daft: the same pictures as the command's step, nothing lost, one person one pseudonym."""

from pathlib import Path
from typing import Any

import pytest
from pictures import jpeg

from ppfr_ops import UserError, sanitize_batch
from ppfr_ops.sample import faces

daft = pytest.importorskip("daft")
METHOD: dict[str, Any] = {"method": "signed-field", "metrics": "none", "seed": 7}


def test_a_column_of_pictures_becomes_a_column_of_protected_ones() -> None:
    from daft import col

    from ppfr_ops.engines.daft_udf import sanitize_faces

    pictures = [*map(jpeg, faces(6)), b"no picture"]
    given = {
        "image": pictures,
        "who": list("aabbccd"),
        "age": list(range(7)),
        "id": list("1234567"),
    }
    step = sanitize_faces(col("image"), col("who"), col("id"), actors=2, batch_rows=3, **METHOD)
    frame = daft.from_pydict(given)
    done = frame.with_column("safe", step).select("age", "safe").sort("age").to_pydict()
    rows = done["safe"]
    assert done["age"] == list(range(7))  # sorted: two actors give batches back as they are done
    assert [row["dead_letter"] for row in rows] == [None] * 6 + ["not_an_image"]
    assert rows[6]["image"] is None and rows[6]["identity"] is None
    named = [row["identity"] for row in rows[:6]]
    assert named[0] == named[1] != named[2] and not set(named) & set("abcd")
    assert [row["record_id"] for row in rows] == list("1234567")
    plain = sanitize_batch(
        {"image": pictures[:6], "id": [row["record_id"] for row in rows[:6]]},
        id_column="id",
        **METHOD,
    )
    made = [row["image"]["bytes"] for row in rows[:6]]
    assert made == [picture["bytes"] for picture in plain["image"]]


@pytest.mark.parametrize("given", [{}, {"key": b"k" * 32}, {"key": None}])
def test_no_key_goes_into_rays_object_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, Any]
) -> None:
    from daft import col

    from ppfr_ops.engines import daft_udf

    columns, options = (col("image"), col("who")), {"method": "pixelate", **given}
    # Daft takes Ray where a test before this one started it.
    monkeypatch.setattr(daft, "get_or_infer_runner_type", lambda: "native")
    daft_udf.sanitize_faces(*columns, **options)  # on this machine
    monkeypatch.setattr(daft, "get_or_infer_runner_type", lambda: "ray")
    with pytest.raises(UserError, match="would lie open in Ray's object store"):
        daft_udf.sanitize_faces(*columns, **options)
    (tmp_path / "key").write_bytes(b"k" * 32)
    daft_udf.sanitize_faces(
        *columns, method="pixelate", identity_key_file=str(tmp_path / "key"), key=given.get("no")
    )
    if "key" not in given:
        daft_udf.sanitize_faces(columns[0], method="pixelate")  # wants none


def test_wrong_options_are_refused_with_the_reason() -> None:
    from daft import col

    from ppfr_ops.engines.daft_udf import sanitize_faces

    with pytest.raises(UserError, match="unknown method"):
        sanitize_faces(col("image"), method="nothing-of-the-kind")
    frame = daft.from_pydict({"image": [1, 2]})
    with pytest.raises(Exception, match="expected bytes"):
        frame.with_column("safe", sanitize_faces(col("image"), **METHOD)).to_pydict()
