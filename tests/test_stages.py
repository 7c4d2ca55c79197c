"""The stages that judge whom a picture shows, on methods whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import Others, Shown, Turned, Virtual, World

from ppfr_ops.contracts.evaluation import Evaluation
from ppfr_ops.contracts.worth import Read
from ppfr_ops.lab.evaluate import run as running
from ppfr_ops.lab.evaluate.attacks.linker import Search
from ppfr_ops.lab.evaluate.evaluation import evaluate, facts
from ppfr_ops.lab.evaluate.learning import fit, new
from ppfr_ops.lab.evaluate.remarks import remarks
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages import Skip, Stage, look, stages
from ppfr_ops.lab.evaluate.stages.benchmark import ranked
from ppfr_ops.lab.evaluate.stages.eye import coarse
from ppfr_ops.lab.evaluate.stages.inference import reading
from ppfr_ops.lab.evaluate.streams import stream


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def shown(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return world.run(Shown(), tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def virtual(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return world.run(Virtual(), tmp_path_factory.mktemp("virtual"))


def measured(run: Run, name: str):  # type: ignore[no-untyped-def]
    found = stages()[name].part_of(run)
    assert found is not None, run.skipped
    return found


def test_streams_are_named_and_do_not_repeat() -> None:
    a, b = stream(0, "a").random(4), stream(0, "b").random(4)
    assert not np.allclose(a, b) and not np.allclose(a, stream(0, "a", 1).random(4))
    np.testing.assert_array_equal(a, stream(0, "a").random(4))


def test_coarse_is_area_averaging() -> None:
    faces = np.zeros((1, 112, 112, 3), np.uint8)
    faces[:, ::2] = 255  # lines of one px: grey from afar
    assert (np.abs(coarse(faces, 28)[0].astype(int) - 128) <= 1).all()
    assert (coarse(faces, 112) == faces).all()


def test_look_says_how_photos_of_a_person_differ(shown: Run, virtual: Run) -> None:
    found = measured(virtual, "look")
    assert found.faces == 24 and found.people == 12
    before, after = found.originals, found.published
    assert before.found > 0.5 > after.found  # blocks of colour are no faces
    drawn, real = after.varied["brightness"], before.varied["brightness"]
    assert drawn.within > 5 * real.within  # every picture is shifted as a whole, photos are noisy
    assert real.between > 5 * drawn.between  # blocks of many colours are of one brightness
    assert after.gradients_auc > 0.95
    same = measured(shown, "look")
    assert same.published.varied["red by green"].between == pytest.approx(
        same.originals.varied["red by green"].between, rel=0.2
    )


def test_variation_is_of_photos_and_of_people() -> None:
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(4000), 3)
    values = 2.0 * rng.normal(size=4000)[who] + 0.5 * rng.normal(size=len(who))
    told = look.varied(np.r_[values, 100.0, np.nan], np.r_[who, 9000, 1])
    assert told.within == pytest.approx(0.5, rel=0.03) and told.between == pytest.approx(
        2, rel=0.03
    )
    assert look.varied(values[:3], np.arange(3)).within is None
    assert look.auc(np.eye(4, dtype=np.float32)[[0, 0, 1, 1]], np.r_[0, 0, 1, 1]) == 1.0


def test_eye_sees_the_person_and_no_virtual_one(shown: Run, virtual: Run) -> None:
    open_, closed = measured(shown, "eye"), measured(virtual, "eye")
    for size in ("112", "56", "28", "20"):
        assert open_.models["fine"][size].protected_original.accuracy > 0.9
        assert closed.models["fine"][size].protected_original.accuracy < 0.75
        assert closed.models["fine"][size].original.accuracy > 0.9
    assert measured(virtual, "utility")["fine"].protected_protected.accuracy > 0.9


def test_the_unchanged_threshold_and_the_recommended_one(virtual: Run) -> None:
    found = measured(virtual, "utility")["fine"]
    assert set(found.thresholds) == {"0.01", "0.001"}
    assert 0 <= found.unchanged.far <= 1 and found.unchanged.tar >= 0.9


def test_releases_match_under_one_key_only(shown: Run, virtual: Run) -> None:
    found = measured(virtual, "releases")
    assert found.keyed
    assert found.models["fine"].same_key.accuracy > 0.9
    assert found.models["fine"].different_keys.accuracy < 0.75
    assert found.models["fine"].same_photo_same_key > 0.9
    assert found.models["fine"].same_photo_different_keys < 0.2
    plain = measured(shown, "releases")
    assert not plain.keyed and plain.models["fine"].different_keys.accuracy > 0.9


def test_linker(world: World, shown: Run, virtual: Run, tmp_path: Path) -> None:
    open_ = measured(shown, "linker")
    assert open_.taught.same_photo > 0.9 and open_.taught.another_photo > 0.9
    assert open_.keys == 0 and open_.gallery == 60 and open_.probes_with_another_photo == 60
    closed = measured(virtual, "linker")
    assert closed.keys >= 4
    assert closed.taught.same_photo < 0.15 and closed.taught.another_photo < 0.15
    assert closed.known_pairs[-1].another_photo < 0.15
    turned = measured(world.run(Turned(), tmp_path), "linker")
    assert turned.taught.same_photo < 0.3
    few, many = turned.known_pairs
    assert (few.pairs, many.pairs) == (16, 256)
    assert many.another_photo > 0.9 and many.another_photo > few.another_photo


def test_search_counts_ties_against_the_attacker() -> None:
    search = Search(np.array([0, 0, 1, 1]), np.arange(4))
    assert search.found(np.ones((4, 4), np.float32)).same_photo == 0
    scores = np.eye(4, dtype=np.float32)
    scores[0, 1] = 0.5  # the person's other photo is next
    scores[2, 0] = 0.5  # somebody else is
    found = search.found(scores)
    assert found.same_photo == 1
    assert found.another_photo <= 0.75
    assert search.chance.same_photo == 0.25
    assert search.chance.another_photo == pytest.approx(1 / 3)


def test_inference(shown: Run, virtual: Run) -> None:
    open_ = measured(shown, "inference").attributes["gender"]
    assert open_.network.balanced_accuracy > 0.8 and open_.chance == 0.5
    assert open_.templates["fine"].standard_error < 0.1
    closed = measured(virtual, "inference").attributes["gender"]
    assert abs(closed.network.balanced_accuracy - 0.5) < 4 * closed.network.standard_error + 0.05
    assert closed.network_original.balanced_accuracy > 0.8


def test_balanced_accuracy_weighs_groups_alike() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    found = reading(np.zeros(100, np.int64), truth, [0, 1])
    assert found.balanced_accuracy == 0.5


def test_regeneration(shown: Run, virtual: Run) -> None:
    open_ = measured(shown, "regeneration")
    assert open_.trained_with == ["coarse"] and set(open_.unseen) == {"fine"}
    assert open_.unseen["fine"].rank1 > 0.3
    closed = measured(virtual, "regeneration").unseen["fine"]
    assert closed.rank1 < 0.15 and closed.same_photo <= closed.stranger + 0.1


def test_training_gives_four_figures(virtual: Run) -> None:
    found = measured(virtual, "training")
    assert found.people == 8 and found.faces == 64
    for name in ("published", "originals"):
        for other in ("published", "originals"):
            assert 0 <= getattr(found, f"{name}_on_{other}").accuracy <= 1
    assert found.originals_on_originals.accuracy > 0.6


def test_benchmark_ranks_recognisers(shown: Run, virtual: Run) -> None:
    found, other = measured(shown, "benchmark"), measured(virtual, "benchmark")
    for part in (found, other):
        names = {"pixels", "gradients", "coarse", "fine", "trained_2", "trained_20"}
        assert part.pairs == 60 and set(part.readers) == names
    for read in found.readers.values():  # what is published is the face: they read it as before
        assert read.published == pytest.approx(read.originals, abs=0.1)
    assert other.readers["fine"].published > 0.9


def test_ranks_and_error_rates() -> None:
    read = {"good": (0.9, 0.95), "fair": (0.8, 0.6), "bad": (0.6, 0.7)}
    told = ranked(10, {name: Read(originals=a, published=b) for name, (a, b) in read.items()})
    assert told.rank_correlation == pytest.approx(0.5)
    assert told.error_rates == pytest.approx((0.5, 2.0))
    same = ranked(10, {name: Read(originals=1, published=1) for name in "ab"})
    assert same.rank_correlation is None and same.error_rates is None


def test_a_generator_that_shows_others_leaks_them(
    world: World, shown: Run, virtual: Run, tmp_path: Path
) -> None:
    stolen = world.run(Others(), tmp_path)
    parts = [measured(run, "leak") for run in (stolen, shown, virtual)]
    taken, *innocent = (part.sets["originals"]["fine"] for part in parts)
    assert parts[0].people == 30 and set(parts[0].sets) == {
        "originals",
        "attack faces",
        "identities",
    }
    assert taken.published > taken.strangers + taken.two_standard_errors
    assert taken.published > 0.9 / 29  # each one's face is another's
    for near in innocent:
        assert near.published <= near.strangers + 0.02
    assert (
        "more often than strangers"
        in remarks(stolen, {**dict.fromkeys(stages()), "leak": parts[0]})[0]
    )
    assert not remarks(shown, {**dict.fromkeys(stages()), "leak": parts[1]})


def test_published_under_a_key_that_is_not_here(world: World, tmp_path: Path) -> None:
    run = world.run(Virtual(), tmp_path, published=world.gallery.images)
    assert stages()["releases"].part_of(run) is None
    assert "key of the release" in run.skipped["releases"]


def test_a_resumed_run_remembers_what_it_skipped(world: World, tmp_path: Path) -> None:
    first = world.run(None, tmp_path, published=world.gallery.images)
    again = world.run(None, tmp_path, published=world.gallery.images)
    for run in (first, again):
        for name in ("linkage", "linker", "diversity", "inference"):
            stages()[name].part_of(run)
    assert set(first.skipped) == {"student", "linker", "diversity", "inference"}
    assert again.skipped == first.skipped


def test_a_checkpoint_outlives_a_result_that_could_not_be_saved(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.run(Shown(), tmp_path, test_faces=2, group_faces=2)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(running, "write_text", full)
        with pytest.raises(OSError):
            stages()["recovery"].part_of(run)
    assert run.checkpoint("recovery_unet").is_file()
    assert stages()["recovery"].part_of(run) is not None
    assert not run.checkpoint("recovery_unet").exists()


def test_a_small_network_goes_on_where_it_was_and_ends_where_it_would_have(tmp_path: Path) -> None:
    def loss_of(rng: np.random.Generator) -> torch.Tensor:
        x = torch.from_numpy(rng.standard_normal((8, 4), dtype=np.float32))
        return torch.square(model(x) - 1).mean()

    def logged(text: str) -> None:
        if "step 6" in text and stops:
            raise KeyboardInterrupt

    ends = []
    for stops in (False, True):
        model = new(lambda: torch.nn.Linear(4, 1), 0)
        path = tmp_path / f"{stops}.pt"
        if stops:
            with pytest.raises(KeyboardInterrupt):
                fit(model, loss_of, 10, 0, "small", checkpoint=path, log=logged)
            model, stops = new(lambda: torch.nn.Linear(4, 1), 1), False
        fit(model, loss_of, 10, 0, "small", checkpoint=path, log=logged)
        ends.append(model.weight.detach())
    assert torch.equal(*ends)


def test_a_stage_of_ones_own(world: World, tmp_path: Path) -> None:
    class Count(Stage[int]):
        name, part, about = "count", int, "faces"

        def measure(self, run: Run) -> int:
            if run.settings.seed:
                raise Skip("only for seed 0")
            return len(run.gallery)

    assert Count().part_of(world.run(Shown(), tmp_path / "a")) == 60
    assert json.loads((tmp_path / "a" / "stages" / "count.json").read_text())["result"] == 60
    other = world.run(Shown(), tmp_path / "b", seed=1)
    assert Count().part_of(other) is None and other.skipped == {"count": "only for seed 0"}


def test_the_document_puts_the_strict_end_first(world: World, tmp_path: Path) -> None:
    run, wanted = world.run(Virtual(), tmp_path), ["utility", "eye", "releases"]
    document = evaluate(run, "made", facts(run, "jpeg 95"), "custom", wanted)
    assert next(iter(type(document.headline).model_fields)) == "black_box_tar"
    assert document.identity == "virtual" and document.schema_version == 3
    assert document.skipped["linker"] == "not asked for"
    assert document.headline.black_box_tar == pytest.approx(
        document.utility["fine"].protected_protected.tar["0.001"]  # type: ignore[index]
    )
    assert document.headline.other_release_accuracy is not None
    assert Evaluation.model_validate_json(document.model_dump_json()) == document
    run = world.run(Virtual(), tmp_path)
    later = evaluate(run, "made", facts(run, "jpeg 95"), "custom", ["diversity"])
    assert later.diversity is not None and later.skipped["linker"] == "not asked for"
    assert (later.utility, later.eye) == (document.utility, document.eye)
