"""What a method declares, and that its secrets stay where they are."""

import json
import pickle
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from pictures import jpeg
from pydantic import Field

from ppfr_ops.cli.methods import main
from ppfr_ops.contracts.policy import parse
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods import registry
from ppfr_ops.methods.base import Anonymizer, Context, Figure, Output, Spending
from ppfr_ops.methods.registry import about, create, methods
from ppfr_ops.sample import faces, write_sample
from ppfr_ops.sanitize.aligned import AlignedFaces
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.run_context import RunContext
from ppfr_ops.sanitize.sanitizer import Sanitizer
from ppfr_ops.store.ledger import Tables

SECRET = b"nobody may ever read this of a method"


class Declares(Anonymizer):
    """Declares everything."""

    redrawable = False
    secrets = {"identity-key": "16 bytes or more; tints a person's pictures"}  # noqa: RUF012
    wants = ("identity",)
    record_figures = (Figure("epsilon", "privacy loss of the record", "1", "0 or more"),)
    release_figures = (Figure("delta", "probability that epsilon does not hold", "1", "0 to 1"),)
    spends = Spending("epsilon", "1", "privacy budget of a person")

    tint: int = Field(7, ge=0, le=255, description="grey levels")

    def anonymize_with(self, faces: Faces, draws: NDArray[np.float32], context: Context) -> Output:
        assert self.secret("identity-key") == SECRET
        told = np.array([len(name or "") for name in context["identity"]], np.float32)
        return Output(np.full_like(faces, self.tint), {"epsilon": told})


def test_context_secrets_and_figures_reach_the_method_and_come_back() -> None:
    method = Declares().with_secrets({"identity-key": SECRET})
    context = Context({"identity": ["Jane", None]})
    draws = np.zeros((2, 0), np.float32)
    output = method.publish(faces(2), draws, context)
    assert (output.faces == 7).all() and output.figures["epsilon"].tolist() == [4, 0]
    with pytest.raises(ValueError, match="wants 'identity' of every face"):
        method(faces(2), draws)
    with pytest.raises(ValueError, match="wants 'identity' of every face"):
        method(faces(2), draws, Context({"identity": ["Jane"]}))


def test_a_secret_is_in_no_repr_option_digest_or_dump() -> None:
    open_, closed = Declares(), Declares().with_secrets({"identity-key": SECRET})
    said = (repr(closed), str(closed), json.dumps(closed.options()), closed.model_dump_json())
    assert not any("nobody may ever" in text for text in said)
    assert open_.digest() == closed.digest()
    assert "Jane" not in repr(Context({"identity": ["Jane"]}))
    assert SECRET not in pickle.dumps(closed)


def test_missing_and_unknown_secrets_are_named() -> None:
    with pytest.raises(UserError, match="needs the secret 'identity-key': 16 bytes"):
        Declares().with_secrets({})
    with pytest.raises(UserError, match="takes no secret 'key'"):
        create("blur").with_secrets({"key": b"x"})


class Careless(Declares):
    def anonymize_with(self, faces: Faces, draws: NDArray[np.float32], context: Context) -> Output:
        return Output(faces)


def test_figures_that_are_declared_have_to_come() -> None:
    with pytest.raises(ValueError, match="did not give the figures"):
        Careless()(faces(1), np.zeros((1, 0), np.float32), Context({"identity": ["x"]}))


def test_every_method_says_what_it_is_in_json_and_in_words() -> None:
    done = CliRunner().invoke(main, ["--json"])
    listed = {item["name"]: item for item in json.loads(done.output)}
    assert set(methods()) <= set(listed)
    assert listed["signed-field"]["draw_size"] == 28 * 28
    assert listed["blur"]["kind"] == "picture" and listed["blur"]["redrawable"]
    assert listed["blur"]["options"]["sigma"]["description"]
    mine = about("mine", Declares)
    assert mine["secrets"] and mine["spends"]["account"] == "epsilon" and not mine["redrawable"]
    assert mine["record_figures"][0]["type"] == "float"
    assert json.dumps(mine)
    words = CliRunner().invoke(main, []).output
    assert "signed-field: " in words and "    grid=28  " in words


def test_a_method_of_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("tinted", "test_methods:Declares", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert isinstance(create("tinted", {"tint": "3"}), Declares)
    assert "needs the secret identity-key" in CliRunner().invoke(main, []).output
    with pytest.raises(UserError, match=r"there are: .*blur.*tinted"):
        create("nope")


def unit(names: list[str | None]) -> pa.Table:
    return pa.table(
        {
            "record_id": [f"u-{row:06d}" for row in range(len(names))],
            "image": pa.array([jpeg(face) for face in faces(len(names))], pa.large_binary()),
            "read_error": pa.nulls(len(names), pa.string()),
            "identity": pa.array(names, pa.string()),
        }
    )


def test_context_and_figures_go_through_the_pipeline() -> None:
    method = Declares().with_secrets({"identity-key": SECRET})
    run = RunContext(method, Encoding(), level="basic", batch_size=2)
    tables = Sanitizer(AlignedFaces(run))(unit(["Jane", "Jo", None]), "u")
    assert tables.records["epsilon"].to_pylist() == [4, 2, 0]
    assert tables.records.schema.field("epsilon").metadata[b"unit"] == b"1"
    assert not tables.dead_letters.num_rows


class Open(Anonymizer):
    """Shows the face as it is, whatever the draw."""

    disclosure_limit = 0.1

    @property
    def draw_size(self) -> int:
        return 1

    def anonymize(self, batch: Faces, draws: NDArray[np.float32]) -> Faces:
        return batch.copy()


class OneDraw(Open):
    redrawable = False


class Broken:
    """An FR model that fails on every face."""

    name = "x"

    def embed(self, batch: Faces) -> NDArray[np.float32]:
        raise RuntimeError("no face")


def test_a_record_that_may_not_be_redrawn_is_never_held_back_for_what_it_shows() -> None:
    policy = parse("record: {psnr: '<= 10'}")
    draws: list[int] = []

    def counted(ids: Sequence[str], size: int, draw: int = 0) -> NDArray[np.float32]:
        draws.append(draw)
        return np.zeros((len(ids), size), np.float32)

    def done(method: Anonymizer, **named: Any) -> Tables:
        draws.clear()
        run = RunContext(method, Encoding(), draws=counted, policy=policy, **named)
        return Sanitizer(AlignedFaces(run))(unit(["a"]), "u")

    assert not done(Open()).records.num_rows and max(draws) > 1
    once = done(OneDraw())
    assert once.records.num_rows == 1 and set(draws) == {0, 1}
    assert once.metrics["psnr"][0].as_py() > 10
    # Nor because it cannot be measured.
    unmeasured = done(OneDraw(), recognizers=[Broken()], level="basic")
    assert unmeasured.records.num_rows == 1 and unmeasured.metrics["psnr"][0].as_py() is None
    assert done(Open(), recognizers=[Broken()], level="basic").dead_letters.num_rows == 1


def test_bounds_on_records_are_refused_for_a_method_that_is_drawn_once(tmp_path: Path) -> None:
    write_sample(tmp_path / "in", count=2, identities=1, files=1)
    common = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    common["method"] = "test_methods:OneDraw"
    with pytest.raises(UserError, match="as first drawn"):
        prepare(SanitizeOptions(**common, max_disclosure=0.5))
    assert prepare(SanitizeOptions(**common)).settings
    common["method"] = "test_methods:Declares"
    (tmp_path / "secret").write_bytes(SECRET)
    files = {"identity-key": str(tmp_path / "secret")}
    with pytest.raises(UserError, match="needs --identity-column"):
        prepare(SanitizeOptions(**common, secrets=files))
    named = {"identity_column": "identity", "identity_key_file": str(tmp_path / "secret")}
    job = prepare(SanitizeOptions(**common, **named, secrets=files))
    assert job.build_method().secret("identity-key") == SECRET
    told = repr(job) + repr(job.options) + json.dumps(dict(job.settings))
    assert SECRET.decode() not in told and "secret identity-key" in job.settings
