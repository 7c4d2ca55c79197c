"""The structure attack: it names people where the set tells who they are, and nobody else."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from ppfr_ops.cli.evaluate import main
from ppfr_ops.contracts.structure import Structure, StructureAttack
from ppfr_ops.errors import UserError
from ppfr_ops.lab.evaluate.attacks import structure as attacks
from ppfr_ops.lab.evaluate.attacks.structure_pictures import (
    by_cosines,
    by_map,
    clusters,
    drawn,
    known_pairs,
    reader,
)
from ppfr_ops.lab.evaluate.structure import Attacked, structure_attack
from ppfr_ops.methods.registry import create

PEOPLE, SHARDS = 120, 12


class World:
    """A source of two files in ``folder/source`` and a release of it in ``folder/release``.

    Args:
        mixed: records are dealt at random to the shards; else shards are blocks of rows.
        lost: share of the rows that are not published.
        ordered: records stand in the order of the rows; else ids are random and sort them.
    """

    def __init__(
        self,
        folder: Path,
        mixed: bool = False,
        lost: float = 0.0,
        ordered: bool = False,
        sizes: NDArray | None = None,
        age: bool = False,
        seed: int = 0,
        secret: NDArray | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        sizes = rng.integers(4, 9, PEOPLE) if sizes is None else sizes
        who = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        ages = rng.integers(20, 60, len(who))
        self.source, self.release = folder / "source", folder / "release"
        self.mapping = folder / "mapping.parquet"
        self.source.mkdir(parents=True)
        (self.release / "data").mkdir(parents=True)
        half = len(who) // 2
        places = []
        for number, part in enumerate((np.arange(half), np.arange(half, len(who)))):
            file = self.source / f"part-{number}.parquet"
            names = [f"person {person}" for person in who[part]]
            pq.write_table(pa.table({"identity": names, "age": ages[part]}), file)
            places += [(str(file), row) for row in range(len(part))]
        self.secret = secret = rng.permutation(len(sizes)) if secret is None else secret
        ids = [f"{value:032x}" for value in rng.permutation(len(who))]
        blocks = np.concatenate(
            [np.arange(n) * (SHARDS // 2) // n for n in (half, len(who) - half)]
        ) + np.repeat([0, SHARDS // 2], [half, len(who) - half])
        if mixed:
            blocks = rng.permutation(blocks)
        kept = rng.random(len(who)) >= lost
        names = rng.permutation(SHARDS)
        for block in range(SHARDS):
            rows = np.flatnonzero((blocks == block) & kept)
            rows = rows if ordered else np.array(sorted(rows, key=lambda row: ids[row]))
            columns = {
                "record_id": [ids[row] for row in rows],
                "identity": [f"{secret[who[row]]:064x}" for row in rows],
            }
            columns |= {"age": ages[rows]} if age else {}
            name = block if ordered else names[block]
            pq.write_table(pa.table(columns), self.release / "data" / f"{name:032x}.parquet")
        sources, rows = zip(*places, strict=True)
        table = pa.table({"record_id": ids, "source": list(sources), "row": list(rows)})
        pq.write_table(table.filter(pa.array(kept)), self.mapping)
        self.whose = pa.table(
            {
                "identity": [f"{secret[person]:064x}" for person in who],
                "source": list(sources),
                "row": list(rows),
            }
        )

    def attack(self) -> Structure:
        return structure_attack(Attacked(str(self.release), str(self.source), str(self.mapping)))


def found(structure: Structure, name: str) -> StructureAttack:
    return next(attack for attack in structure.attacks if attack.attack == name)


def test_shards_of_consecutive_rows_name_nearly_everybody(tmp_path: Path) -> None:
    told = World(tmp_path).attack()
    assert (told.people, told.pseudonyms, told.shards) == (PEOPLE, PEOPLE, SHARDS)
    shards = found(told, "shards")
    assert shards.named > 0.95 * PEOPLE and shards.right == shards.named
    assert shards.control_right is not None and shards.control_right <= 4
    assert told.worst > 0.95 and shards in told.attacks[:2]


def test_rows_that_are_missing_do_not_stop_it(tmp_path: Path) -> None:
    shards = found(World(tmp_path, lost=0.02).attack(), "shards")
    assert shards.right is not None and shards.right > 0.8 * PEOPLE


def test_blocks_of_a_sorted_source_are_told_by_their_people() -> None:
    rng = np.random.default_rng(3)
    people = np.repeat(np.arange(1200), np.clip(rng.pareto(1.2, 1200).astype(int) + 1, 1, 60))
    known = attacks.table(people, np.arange(len(people)) * 12 // len(people))
    order = rng.permutation(12)
    shown = known[rng.permutation(1200)][:, order]
    lonely = (shown == 1) & (rng.random(shown.shape) < 0.05)  # and a few whom nobody found
    assert (attacks.matched_blocks(known, shown - lonely) == order).all()


def test_rows_that_are_mixed_name_nobody_by_shards_or_order(tmp_path: Path) -> None:
    told = World(tmp_path, mixed=True, sizes=np.full(PEOPLE, 6)).attack()
    for name in attacks.ATTACKS:
        right = found(told, name).right
        assert right is not None and right <= 4, name


def test_sizes_of_ones_own_name_people(tmp_path: Path) -> None:
    sizes = np.concatenate([np.full(40, 5), np.arange(10, 30)])
    told = World(tmp_path, mixed=True, sizes=sizes).attack()
    by_size = found(told, "sizes")
    assert (by_size.named, by_size.right) == (20, 20)
    assert by_size.control_right is not None and by_size.control_right <= 2


def test_kept_columns_name_whom_sizes_do_not(tmp_path: Path) -> None:
    told = World(tmp_path, mixed=True, sizes=np.full(PEOPLE, 6), age=True).attack()
    assert found(told, "sizes").named == 0
    assert found(told, "sizes and kept columns").right == PEOPLE
    assert (told.singled_out, told.structure_k) == (PEOPLE, 1)


def test_a_guess_within_sizes_is_told_from_one_that_knows_more(tmp_path: Path) -> None:
    """Of people whose numbers of photos are shared by ten who guesses the number is right once in
    ten, and no more often where rows are mixed; what shards tell besides lies far above it."""
    told = World(tmp_path / "mixed", mixed=True, sizes=np.repeat(np.arange(5, 11), 10)).attack()
    guess = found(told, "all of these, a guess at everybody")
    assert guess.within_sizes is not None and 1 < guess.within_sizes < 6.5
    assert guess.right is not None and guess.within_sizes_most is not None
    assert guess.right <= guess.within_sizes_most <= 15
    told = World(tmp_path / "blocks", sizes=np.repeat(np.arange(5, 11), 10)).attack()
    shards = found(told, "shards")
    assert shards.right is not None and shards.within_sizes_most is not None
    assert shards.right > 40 > shards.within_sizes_most


def test_luck_is_shuffled_within_sizes_and_kept_values_only() -> None:
    names = np.repeat(np.arange(30), np.repeat([2, 3], 15))
    kept = [("x",)] * 60 + [("y",)] * 15
    seen = attacks.Seen(np.zeros(75, int), names, kept, [""] * 75)
    truth = {name: (name * 7) % 30 for name in range(30)}
    right = attacks.within_sizes(seen, truth, truth)  # classes of 15, 10 and 5 people
    assert right.mean() == pytest.approx(3, abs=0.2) and right.max() > 5
    strangers = {name: truth[(name + 15) % 30] for name in range(30)}
    assert attacks.within_sizes(seen, truth, strangers).max() == 0
    assert attacks.within_sizes(seen, {3: 21}, {3: 21}).min() == 1


def test_the_order_of_the_source_names_people(tmp_path: Path) -> None:
    order = found(World(tmp_path, ordered=True).attack(), "order")
    assert order.right is not None and order.right == order.named > 0.95 * PEOPLE


def test_a_mapping_may_be_of_people_and_need_not_be(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = world.attack()
    pq.write_table(world.whose, world.mapping)
    assert world.attack() == first
    unknown = structure_attack(Attacked(str(world.release), str(world.source)))
    assert [a.right for a in unknown.attacks] == [None] * len(unknown.attacks)
    assert {a.named for a in unknown.attacks} == {a.named for a in first.attacks}


def test_what_is_no_release_or_another_source_is_refused(tmp_path: Path) -> None:
    world, other = World(tmp_path / "a"), World(tmp_path / "b", seed=1)
    with pytest.raises(UserError, match="--release"):
        structure_attack(Attacked(str(world.source), str(world.source)))
    with pytest.raises(UserError, match="--source"):
        structure_attack(Attacked(str(world.release), str(world.source), None, "name"))
    pq.write_table(other.whose.slice(0, 0), world.mapping)
    with pytest.raises(UserError, match="--mapping"):
        world.attack()


def test_the_command_runs_the_stage_alone(tmp_path: Path) -> None:
    world, out = World(tmp_path), tmp_path / "out"
    options = ["--stages", "structure", "--release", str(world.release), "--source"]
    options += [str(world.source), "--mapping", str(world.mapping), "--out", str(out)]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    assert "rightly" in done.output and not re.search(r"person \d", done.output)
    document = json.loads((out / "evaluation.json").read_text())
    assert "shards" in {attack["attack"] for attack in document["structure"]["attacks"][:2]}
    assert document["headline"]["named_by_structure"] > 0.9
    done = CliRunner().invoke(main, [*options, "--require", "named_by_structure<=0.1"])
    assert done.exit_code == 3, done.output
    done = CliRunner().invoke(main, ["--method", "blur", "--out", str(out)])
    assert done.exit_code == 2 and "--gallery" in done.output


def likeness(kept: float) -> tuple[attacks.Source, attacks.Seen, NDArray, NDArray]:
    """12 people with 20 frames each; published templates have as much of what photos of a person
    differ by, turned by a secret of the person."""
    rng = np.random.default_rng(0)
    people, frames = np.repeat(np.arange(12), 20), [(n % 20,) for n in range(240)]
    photos = rng.standard_normal((240, 64)) + 1.2 * rng.standard_normal((12, 64))[people]
    turns = np.linalg.qr(rng.standard_normal((12, 64, 64)))[0]
    secret = np.einsum("nd,nde->ne", photos, turns[people])
    shown = kept * secret + rng.standard_normal((240, 64)) + rng.standard_normal((12, 64))[people]
    order, names = rng.permutation(240), rng.permutation(12)
    source = attacks.Source(people, np.zeros(240, int), frames)
    seen = attacks.Seen(
        np.zeros(240, int),
        names[people][order],
        [frames[n] for n in order],
        [str(people[n]) for n in order],
    )
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (photos, shown[order])]
    return source, seen, *unit


def truth_of(seen: attacks.Seen) -> dict[int, int]:
    return {int(name): int(person) for name, person in zip(seen.pseudonyms, seen.ids, strict=True)}


def test_frames_that_are_known_name_people_whose_photos_differ_as_their_pictures_do() -> None:
    source, seen, photos, shown = likeness(kept=0.7)
    claims = by_cosines(source, seen, photos, shown)
    assert sum(claims[name] == person for name, person in truth_of(seen).items()) == 12
    source, seen, photos, shown = likeness(kept=0.0)
    claims = by_cosines(source, seen, photos, shown)
    assert sum(claims[name] == person for name, person in truth_of(seen).items()) <= 3
    unnumbered = attacks.Seen(seen.shards, seen.pseudonyms, [()] * 240, seen.ids)
    assert by_cosines(source, unnumbered, photos, shown) == {}


def test_pictures_that_are_alike_take_the_place_of_pseudonyms() -> None:
    rng = np.random.default_rng(0)
    people = rng.permutation(np.repeat(np.arange(90), np.repeat([1, 3, 8], 30)))
    templates = rng.standard_normal((90, 128))[people] + 0.7 * rng.standard_normal((360, 128))
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    found = clusters([templates.astype(np.float32)], people)
    assert len(set(zip(found.tolist(), people.tolist(), strict=True))) == found.max() + 1 == 90


def mapped(kind: str, shards: int = 1) -> tuple[attacks.Source, attacks.Seen, NDArray, NDArray]:
    """160 people; published templates show what a secret map makes of a person's mean template."""
    rng = np.random.default_rng(1)
    size, scale = 32, np.linspace(1.5, 0.3, 32)
    people = rng.permutation(np.repeat(np.arange(160), rng.integers(3, 9, 160)))
    photos = rng.standard_normal((160, size))[people] * scale
    photos += 0.5 * rng.standard_normal(photos.shape) * scale
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    means = np.stack([photos[people == person].mean(0) for person in range(160)])
    if kind == "a turn":
        codes = means @ np.linalg.qr(rng.standard_normal((size, size)))[0]
    elif kind == "products":
        codes = np.einsum("ni,nj,ijk->nk", means, means, rng.standard_normal((size,) * 3))
    else:
        codes = rng.standard_normal((160, size))
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    blocks = np.arange(len(people)) * shards // len(people)
    names = rng.permutation(160)
    shown = codes[people] + 0.05 * rng.standard_normal((len(people), size))
    source = attacks.Source(people, np.zeros(len(people), int), [()] * len(people))
    seen = attacks.Seen(blocks, names[people], [()] * len(people), [str(p) for p in people])
    return source, seen, photos, shown


@pytest.mark.parametrize(
    ("kind", "shards", "known", "least"),
    [
        ("a turn", 1, 0, 0.9),
        ("products", 8, 0, 0.9),
        ("products", 1, 100, 0.3),
        ("a turn", 1, 16, 0.9),
    ],
)
def test_a_secret_map_is_learned_from_the_release(
    kind: str, shards: int, known: int, least: float
) -> None:
    source, seen, photos, shown = mapped(kind, shards)
    truth = truth_of(seen)
    pairs = known_pairs(truth, known)
    claims = by_map(source, seen, photos, shown, pairs)
    assert len(claims) == 160 - known and not set(claims) & set(pairs)
    assert sum(truth[name] == person for name, person in claims.items()) >= least * len(claims)


@pytest.mark.parametrize("known", [0, 60])
def test_where_there_is_no_map_none_is_learned(known: int) -> None:
    source, seen, photos, shown = mapped("nothing")
    truth = truth_of(seen)
    claims = by_map(source, seen, photos, shown, known_pairs(truth, known))
    # six sizes: who guesses within them is right six times of 160
    assert sum(truth[name] == person for name, person in claims.items()) <= 12


def test_codes_of_the_public_generator_are_read_back_from_its_pictures() -> None:
    rng = np.random.default_rng(0)
    codes, public = rng.standard_normal((400, 16)), rng.standard_normal((16, 64))
    templates = np.tanh(codes @ public / 4) + 0.3 * rng.standard_normal((400, 64))
    read, cosine = reader(templates[:300].astype(np.float32), codes[:300].astype(np.float32))
    assert cosine > 0.8
    found = read(templates[300:].astype(np.float32))
    assert np.corrcoef(found.ravel(), codes[300:].ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    ("name", "options", "numbers"),
    [
        ("stochastic-local", {"identity": "virtual"}, None),
        ("natural", {"keep_look": "light"}, 512 + 20),
    ],
)
def test_codes_of_pictures_are_those_they_were_drawn_from(
    name: str, options: dict[str, str], numbers: int | None
) -> None:
    pictures, drew = drawn(create(name, options), 2)
    assert pictures.shape == (2, 112, 112, 3) and drew.dtype == np.float32
    assert drew.shape == (2, numbers or drew.shape[1])
    assert not np.allclose(drew[0], drew[1])


def test_versions_are_laid_side_by_side(tmp_path: Path) -> None:
    """Who has 3 photos in one version and 6 in the next is found where others have other numbers
    in either, though the sums are shared."""
    first = World(tmp_path / "a", mixed=True, sizes=np.repeat([3, 4, 5], [40, 40, 40]))
    later = World(
        tmp_path / "b",
        mixed=True,
        sizes=np.r_[6, np.full(39, 4), np.full(80, 5)],
        secret=first.secret,
    )
    both = Attacked(
        str(later.release),
        str(later.source),
        str(later.mapping),
        earlier=((str(first.release), str(first.source)),),
    )
    told = structure_attack(both)
    assert (told.people, told.pseudonyms) == (PEOPLE, PEOPLE)
    assert found(told, "sizes and kept columns").named == 1
    assert told.records == 480 + 562
