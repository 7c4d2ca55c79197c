"""Differential privacy: the mechanism against OpenDP and dp-accounting, methods, account."""

import contextlib
import io
import math
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from private import key, options, run, write

from ppfr_ops import sample, sanitize_batch
from ppfr_ops.cli.status import look
from ppfr_ops.draws import system_draws
from ppfr_ops.errors import UserError
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.dp.eigenface import BASIS, SIZE, basis
from ppfr_ops.methods.dp.mechanism import Mechanism, measurement
from ppfr_ops.methods.dp.template import DIRECTIONS
from ppfr_ops.methods.registry import create
from ppfr_ops.privacy import Loss
from ppfr_ops.sanitize import conductor
from ppfr_ops.sanitize.accounts import charge
from ppfr_ops.sanitize.privacy_audit import audit
from ppfr_ops.source import plan as planning
from ppfr_ops.source import reader, units
from ppfr_ops.source.units import Columns
from ppfr_ops.store.account import Account, Balance, Charge
from ppfr_ops.store.folder import Folder, LedgerError
from ppfr_ops.store.ledger import Ledger

EPSILONS = (0.1, 1.0, 8.0, 100.0, 500.0)


# -- mechanism ------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_deviation_is_the_accountants_and_opendp_bounds_it(epsilon: float) -> None:
    from dp_accounting.pld import common, privacy_loss_distribution
    from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss

    made = Mechanism("gaussian", epsilon, 1e-6)
    by_pld = GaussianPrivacyLoss.from_privacy_guarantee(
        common.DifferentialPrivacyParameters(epsilon, 1e-6), sensitivity=2.0
    )
    assert made.scale == pytest.approx(by_pld.standard_deviation, rel=1e-4)
    assert made.scale >= by_pld.standard_deviation
    if epsilon <= 8:
        spent = privacy_loss_distribution.from_gaussian_mechanism(made.scale / 2)
        assert spent.get_epsilon_for_delta(1e-6) == pytest.approx(epsilon, rel=0.01)
    # What is proven for the discrete noise itself: rho, and epsilon from it, which is looser.
    rho = measurement(made).map(2.0 * made.radius)
    assert rho == pytest.approx((2 / made.scale) ** 2 / 2, rel=1e-6)
    loose = rho + 2 * math.sqrt(rho * math.log(1e6))
    assert epsilon <= loose * 1.001 and loose <= 1.35 * epsilon + 0.1


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_laplace_is_what_opendp_says(epsilon: float) -> None:
    made = Mechanism("laplace", epsilon, 1e-6)
    assert 0.999999 * epsilon <= measurement(made).map(2 * made.radius) <= epsilon
    assert made.loss == Loss(pure=epsilon)


@pytest.mark.parametrize("noise", ["laplace", "gaussian"])
def test_nothing_leaves_the_ball(noise: Any) -> None:
    made = Mechanism(noise, 1.0, 1e-6)
    rng = np.random.default_rng(0)
    odd = [np.full(6, np.nan), np.full(6, np.inf), np.full(6, 1e300), np.full(6, -1e-300)]
    given = np.concatenate([rng.normal(size=(50, 6)) * 10, rng.normal(size=(50, 6)) / 99, odd])
    for row in made.clipped(given).tolist():
        norm = (
            sum(abs(v) for v in row) if noise == "laplace" else math.isqrt(sum(v * v for v in row))
        )
        assert norm <= made.radius
    assert np.isfinite(made.private(given)).all()


def test_noise_has_its_deviation() -> None:
    for noise in ("laplace", "gaussian"):
        made = Mechanism(noise, 4.0, 1e-6)  # type: ignore[arg-type]
        drawn = made.private(np.zeros((1500, 2)))
        assert drawn.std() == pytest.approx(made.deviation, rel=0.12)  # 6 standard errors or more
    assert made.private(np.zeros((0, 2))).shape == (0, 2)


def test_costs_add_up_as_the_accountant_says() -> None:
    from dp_accounting.pld import privacy_loss_distribution

    one = Mechanism("gaussian", 1.0, 1e-6)
    five = privacy_loss_distribution.from_gaussian_mechanism(one.scale / 2).self_compose(5)
    assert one.loss.times(5).epsilon(1e-6) == pytest.approx(
        five.get_epsilon_for_delta(1e-6), rel=0.01
    )
    assert one.loss.times(5).epsilon(1e-6) < 5
    mixed = one.loss + Loss(pure=0.5)
    assert mixed.epsilon(1e-6) == pytest.approx(1.5, rel=1e-3)


def test_the_budget_of_a_person_is_shared_by_the_photos() -> None:
    for noise in ("laplace", "gaussian"):
        method = create(
            "dp-eigenface", {"epsilon": "3", "noise": noise, "unit": "person", "photos": "7"}
        )
        given = method.guarantee()
        assert given is not None and given.unit == "person"
        assert given.loss.times(7).epsilon(1e-6) == pytest.approx(3, rel=1e-3)
    with pytest.raises(UserError, match="unit person needs photos"):
        create("dp-eigenface", {"epsilon": "3", "unit": "person"})


# -- methods --------------------------------------------------------------------------------


def test_epsilon_has_no_default() -> None:
    for name in ("dp-eigenface", "dp-template", "dp-virtual"):
        with pytest.raises(UserError, match="epsilon"):
            create(name, {})
        with pytest.raises(UserError, match="epsilon"):
            create(name, {"epsilon": "inf"})


def test_what_ships_is_small_and_orthogonal() -> None:
    assert BASIS.stat().st_size + DIRECTIONS.stat().st_size < 2_000_000
    products = basis().axes @ basis().axes.T
    assert np.abs(products - np.eye(SIZE)).max() < 0.02


def test_every_record_says_what_is_promised() -> None:
    rows = sanitize_batch(
        {"image": list(sample.faces(2))},
        method="dp-eigenface",
        method_options={"epsilon": "2", "noise": "laplace"},
        metrics="none",
    )
    assert rows["epsilon"] == [2.0, 2.0] and rows["delta"] == [0.0, 0.0]
    assert rows["adjacency"] == ["replace one"] * 2 and rows["privacy_unit"] == ["record"] * 2
    assert "Laplace" in rows["mechanism"][0] and rows["clip_radius"][0] == 64


def test_peep_as_published_is_refused_and_its_true_epsilon_told() -> None:
    options = {"epsilon": "0.5", "claim": "peep"}
    with pytest.raises(UserError, match="the true epsilon is 64; --accept-unsound"):
        sanitize_batch(
            {"image": list(sample.faces(1))}, method="dp-eigenface", method_options=options
        )
    about = create("dp-eigenface", options).about_release()
    assert (about["epsilon"], about["claimed_epsilon"], about["sound"]) == (64, 0.5, False)


def test_the_published_scaling_is_that_of_the_paper() -> None:
    method = create("dp-eigenface", {"epsilon": "0.5", "claim": "peep"})
    made = method.mechanism()  # type: ignore[attr-defined]
    # In 0..1 a coefficient's whole range is 2 / SIZE of the mechanism's unit.
    assert made.scale / (2 / SIZE) == pytest.approx(1 / 0.5)


def test_with_variation_or_epsilon_0_no_face_is_read() -> None:
    draws = system_draws(["", ""], create("dp-virtual", {"epsilon": "0"}).draw_size)
    one, other = sample.faces(2, seed=1), sample.faces(2, seed=2)
    for chosen in ({"epsilon": "0"}, {"epsilon": "4", "variation": "0"}):
        method = create("dp-virtual", chosen).with_secrets({"identity-key": b"k" * 32})
        for labels in (["a", "b"], [None, "b"]):
            context = Context({"identity": labels})
            assert (method(one, draws, context) == method(other, draws, context)).all()
        given = method.guarantee()
        assert given is not None and given.epsilon == 0 and given.loss == Loss()


# -- account --------------------------------------------------------------------------------


def test_five_releases_of_a_person_and_no_sixth(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(sample.faces(3)), ["ann", "ann", "bob"])
    account = tmp_path / "account"
    given = {
        "metrics": "none",
        "identity_column": "identity",
        "identity_key_file": key(tmp_path),
        "privacy_account": str(account),
    }
    for number in range(5):  # ann has two photos
        assert run(options(source, tmp_path / f"out{number}", privacy_budget=10, **given)) == 0
    with pytest.raises(UserError, match=r"1 of 2 people .* has spent 10 and would come to 12 with"):
        run(options(source, tmp_path / "out5", privacy_budget=10, **given))
    assert not list((tmp_path / "out5").glob("release/data/*.parquet"))
    seen = look(str(tmp_path / "out4"), str(account)).privacy
    assert seen is not None and (seen.people, seen.records) == (2, 15)
    assert [(count, spent) for _, count, spent in seen.highest] == [(10, 10.0), (5, 5.0)]
    # A new run of an output is a new release.
    with pytest.raises(UserError, match="would overdraw"):
        run(options(source, tmp_path / "out0", privacy_budget=10, overwrite=True, **given))


def test_what_is_done_anew_is_paid_anew_and_overwriting_forgets_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(sample.faces(2)), ["ann", "bob"])
    output = tmp_path / "out"
    given = {"metrics": "none", "identity_column": "identity", "identity_key_file": key(tmp_path)}
    assert run(options(source, output, **given)) == 0
    assert run(options(source, output, **given)) == 0  # nothing to do, nothing to pay
    assert Counter(Account(Ledger(str(output))).balance().records.values()) == {1: 2}
    assert run(options(source, output, overwrite=True, **given)) == 0
    assert Counter(Account(Ledger(str(output))).balance().records.values()) == {2: 2}
    (charge, *_) = Path(output, "evidence/ledger/account/charges").iterdir()
    charge.write_text("{}")
    with pytest.raises(LedgerError, match="damaged charge"):
        look(str(output))


@pytest.mark.parametrize("where", ["charge", "commit"])
def test_killed_around_the_payment_never_less_is_spent_than_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """An exception that nobody catches stands for the kill: nothing after it runs."""
    source = write(tmp_path / "in", list(sample.faces(6)), [f"p{i}" for i in range(6)])
    output = tmp_path / "out"
    chosen = options(
        source,
        output,
        metrics="none",
        unit_rows=2,
        identity_column="identity",
        identity_key_file=key(tmp_path),
    )

    class Killed(BaseException):
        pass

    def dies(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        place = Account if where == "charge" else Ledger
        patch.setattr(place, where, dies)
        with pytest.raises(Killed):
            run(chosen)
    ledger = Ledger(str(output))
    spent = Account(ledger).balance().records
    assert spent.total() == (0 if where == "charge" else 2) and not ledger.entries()
    assert run(chosen) == 0
    spent = Account(ledger).balance().records
    published = sum(entry.records for entry in ledger.entries().values())
    assert published == 6 and spent.total() == (6 if where == "charge" else 8)


def test_a_person_with_more_photos_than_were_said(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(sample.faces(3)), ["ann"] * 3)
    with pytest.raises(UserError, match="has 3 photos, and epsilon was said to cover 2"):
        run(
            options(
                source,
                tmp_path / "out",
                method_options={"epsilon": "1", "unit": "person", "photos": "2"},
                identity_column="identity",
            )
        )


BY_PERSON = {"epsilon": "2", "unit": "person", "photos": "3"}


def test_the_unit_person_holds_where_records_are_made(tmp_path: Path) -> None:
    """Rows of nobody are no records; a batch, which sees its own rows only, is refused."""
    faces = list(sample.faces(5))
    source = write(tmp_path / "in", faces, ["ann", "ann", None, "bob", None])
    output = tmp_path / "out"
    chosen = options(
        source, output, method_options=BY_PERSON, metrics="none", identity_column="identity"
    )
    assert run(chosen) == 3
    entries = Ledger(str(output)).entries().values()
    assert sum(entry.records for entry in entries) == 3
    assert sum((Counter(e.dead_letters) for e in entries), Counter()) == {"unlabelled": 2}
    # And should one come that far, it is not paid for by nobody.
    job = SimpleNamespace(
        build_method=lambda: SimpleNamespace(guarantee=lambda: promised, kept_look=())
    )
    promised = SimpleNamespace(unit="person", loss=Loss(1.0), photos=9)
    nobodys = SimpleNamespace(records=pa.table({"identity": ["a", None]}))
    with pytest.raises(UserError, match="has no identity"):
        charge(job, object(), None, "u", "c", nobodys)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="a batch is one of several"):
        sanitize_batch(
            {"image": [faces[0]] * 20, "identity": ["ann"] * 20},
            method="dp-eigenface",
            method_options=BY_PERSON,
            identity_column="identity",
        )


def test_photos_that_come_after_the_check_are_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input changes between the check before the run and the reading of a unit."""
    source = write(tmp_path / "in", list(sample.faces(8)), ["ann"] * 8)
    output = tmp_path / "out"
    monkeypatch.setattr(conductor, "refuse_overdrawn", lambda job, todo: None)
    chosen = options(
        source,
        output,
        method_options=BY_PERSON,
        metrics="none",
        identity_column="identity",
        unit_rows=2,
    )
    assert run(chosen) != 0
    assert sum(entry.records for entry in Ledger(str(output)).entries().values()) == 2


def one(name: str, who: str = "ann", **more: Any) -> Charge:
    return Charge(pure=1.0, square=0.0, delta=1e-6, records={who: 1}, name=name, **more)


def never_more_than(most: float) -> Any:
    def allowed(balance: Balance, charge: Charge) -> None:
        for who in charge.records:
            if balance.epsilon(who, Loss(charge.pure)) > most:
                raise UserError("spent")

    return allowed


def test_two_runs_together_spend_no_more_than_one_may(tmp_path: Path) -> None:
    """One is stopped after it read the account, another takes over and spends, the first wakes:
    no lease stood in its way, so together they spent 8 of 4."""
    runs = [Account(Folder(str(tmp_path)), ()) for _ in range(2)]
    allowed = never_more_than(4)
    runs[0].charge(one("a0"), allowed)
    for number in range(3):
        runs[1].charge(one(f"b{number}"), allowed)
    with pytest.raises(UserError, match="spent"):
        runs[0].charge(one("a1"), allowed)
    assert runs[0].balance().records == {"ann": 4}
    runs[0].charge(one("a2", "bob"), allowed)  # others may go on


def test_threads_and_processes_charge_one_number_each(tmp_path: Path) -> None:
    spent: list[str] = []

    def work(index: int) -> None:
        account = Account(Folder(str(tmp_path)), ())
        for number in range(20):
            with contextlib.suppress(UserError):
                account.charge(one(f"{index}-{number}"), never_more_than(30))
                spent.append(f"{index}-{number}")

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spent) == 30
    assert Account(Folder(str(tmp_path)), ()).balance().records == {"ann": 30}


PROCESS = """
import contextlib, sys
from ppfr_ops.errors import UserError
from ppfr_ops.store.account import Account, Charge
from ppfr_ops.store.folder import Folder

def allowed(balance, charge):
    if balance.records["ann"] >= 20:
        raise UserError("spent")

account = Account(Folder(sys.argv[1]), ())
for number in range(15):
    name = f"{sys.argv[2]}-{number}"
    with contextlib.suppress(UserError):
        charge = Charge(pure=1, square=2, delta=1e-6, records={"ann": 1}, name=name)
        account.charge(charge, allowed)
        print(name)
"""


def test_two_processes_charge_one_number_each(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    both = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "ab"]
    said = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(map(len, said)) == 20
    assert Account(Folder(str(tmp_path)), ()).balance().records == {"ann": 20}


def test_a_charge_that_the_list_does_not_have_yet_counts_and_one_that_is_gone_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that was begun before two charges were made may have the second of them only."""
    account = Account(Folder(str(tmp_path)), ())
    for name in "abc":
        account.charge(one(name))
    names = Folder.names
    with monkeypatch.context() as patch:
        patch.setattr(
            Folder, "names", lambda self, *p: [n for n in names(self, *p) if "02" not in n]
        )
        late = Account(Folder(str(tmp_path)), ())
        assert late.balance().records == {"ann": 3}
        with pytest.raises(UserError, match="spent"):
            late.charge(one("d"), never_more_than(3))
    (tmp_path / "charges" / f"{2:012}.json").unlink()
    with pytest.raises(LedgerError, match="lost it"):
        Account(Folder(str(tmp_path)), ()).charge(one("e"), never_more_than(9))


@pytest.mark.parametrize("checked", [True, False])
def test_a_charge_whose_answer_is_lost_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """The store wrote it and said so to nobody; asked again it says that there is one."""
    account = Account(Folder(str(tmp_path)), ())
    create_, lost = Folder.create_bytes, [True]

    def forgetful(self: Folder, data: bytes, *parts: str) -> bool:
        done = create_(self, data, *parts)
        return done and not (lost and lost.pop())

    monkeypatch.setattr(Folder, "create_bytes", forgetful)
    allowed = never_more_than(2) if checked else None
    account.charge(one("a"), allowed)
    account.charge(one("b"), allowed)
    assert account.balance().records == {"ann": 2}


def test_charges_of_earlier_versions_count(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    old = one("x").model_dump(exclude={"name", "release", "unit"})
    folder.create(old, "charges", "release-copy.json")
    account = Account(folder, ())
    account.charge(one("a"), never_more_than(2))
    with pytest.raises(UserError, match="spent"):
        account.charge(one("b"), never_more_than(2))


def test_a_unit_that_is_tried_again_counts_once_against_the_photos(tmp_path: Path) -> None:
    account = Account(Folder(str(tmp_path)), ())
    for name in "abc":
        account.charge(one(name, release="r", unit="u"))
    account.charge(one("d", release="r", unit="v"))
    charge = one("e", release="r", unit="w")
    assert account.balance().photos_with(charge) == {"ann": 3}
    assert account.balance().photos_with(one("f", release="r", unit="v")) == {"ann": 2}


@pytest.mark.parametrize("kind", ["tree", "parquet", "tar"])
def test_the_bytes_of_a_picture_have_no_part_in_the_number_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for module in (units, reader, planning):
        monkeypatch.setattr(module, "UNIT_BYTES", 20_000)
    counts = []
    for size in (100, 30_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        cells = [os.urandom(size) for _ in range(6)]
        if kind == "parquet":
            pq.write_table(pa.table({"image": cells}), folder / "a.parquet")
        elif kind == "tree":
            for number, cell in enumerate(cells):
                (folder / f"{number}.png").write_bytes(cell)
        else:
            with tarfile.open(folder / "a.tar", "w") as file:
                for number, cell in enumerate(cells):
                    member = tarfile.TarInfo(f"{number}.png")
                    member.size = len(cell)
                    file.addfile(member, io.BytesIO(cell))
        plans = [
            planning.plan(str(folder), Columns(), unit_rows=100, by_bytes=b) for b in (True, False)
        ]
        counts.append([len(plan.units) for plan in plans])
    assert counts[0] == [1, 1] and counts[1][0] > 1 and counts[1][1] == 1


def test_the_first_command_of_the_page_runs_on_the_sample(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs/differential-privacy.md").read_text()
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert block
    lines = block[1].replace("\\\n", " ").splitlines()
    lines = [line.split(" #")[0].strip() for line in lines]
    runnable = lines[
        : next(i for i, line in enumerate(lines) if line.startswith("ppfr status")) + 1
    ]
    assert len(runnable) == 4
    script = "\n".join(["set -e", *runnable])
    script = script.replace("ppfr ", f"{sys.executable} -m ppfr_ops.cli ")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "protected/release/data").glob("*.parquet"))
    assert "privacy account" in done.stdout


def test_the_noised_vector_is_audited_beside_the_picture() -> None:
    found = audit("dp-eigenface", {"epsilon": "3", "noise": "laplace"}, 200)
    assert found.vector_trials == 200 and found.vector_epsilon_at_least is not None
    assert 0.5 < found.vector_epsilon_at_least <= 3 and found.holds
    person = {"epsilon": "3", "noise": "laplace", "unit": "person", "photos": "3"}
    assert audit("dp-eigenface", person, 100).claimed_epsilon == pytest.approx(1)


def test_a_mechanism_with_too_little_noise_is_caught_by_its_vector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half the noise, as a wrong sensitivity would give it."""
    private = Mechanism.private

    def half(self: Mechanism, vectors: Any) -> Any:
        return (private(self, vectors) + self.clipped(vectors) / self.radius) / 2

    monkeypatch.setattr(Mechanism, "private", half)
    found = audit("dp-eigenface", {"epsilon": "1", "noise": "laplace"}, 1200)
    assert found.vector_epsilon_at_least is not None and found.vector_epsilon_at_least > 1
    assert not found.holds and found.broken


def test_a_budget_needs_a_guarantee_and_a_key(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(sample.faces(1)), ["ann"])
    with pytest.raises(UserError, match="promises no differential privacy"):
        run(options(source, tmp_path / "o", method="blur", method_options={}, privacy_budget=1))
    with pytest.raises(UserError, match="pseudonyms that outlast a release"):
        run(options(source, tmp_path / "o", identity_column="identity", privacy_budget=1))
