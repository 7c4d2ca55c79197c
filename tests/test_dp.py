"""Differential privacy: the mechanism against OpenDP and dp-accounting, methods, account."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
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
from ppfr_ops.store.account import Account
from ppfr_ops.store.folder import LedgerError
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


def test_a_budget_needs_a_guarantee_and_a_key(tmp_path: Path) -> None:
    source = write(tmp_path / "in", list(sample.faces(1)), ["ann"])
    with pytest.raises(UserError, match="promises no differential privacy"):
        run(options(source, tmp_path / "o", method="blur", method_options={}, privacy_budget=1))
    with pytest.raises(UserError, match="pseudonyms that outlast a release"):
        run(options(source, tmp_path / "o", identity_column="identity", privacy_budget=1))
