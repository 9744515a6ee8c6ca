"""Predictors against what they should say of known curves."""

import pytest
import torch
from torch import Tensor

from ditstack.maths.lowrank import energy_rank, gram, principal
from ditstack.maths.predictors import Ema, Fitted, Holt, Reuse, Subspace, Taylor, lagrange

KNOTS = (1.0, 0.85, 0.6, 0.5)


def curve(t: float, order: int) -> Tensor:
    """A polynomial of t with another coefficient for every element."""
    coefficients = torch.randn(order + 1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    return sum((coefficients[power] * t**power for power in range(order + 1)), torch.zeros(2, 3, 4))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_taylor_is_exact_for_a_polynomial_of_its_order_on_uneven_gaps(order: int) -> None:
    predictor = Taylor(order)
    for t in KNOTS:
        predictor.keep(curve(t, order), t)
    torch.testing.assert_close(predictor.at(0.37), curve(0.37, order), rtol=1e-4, atol=1e-4)


def test_holt_is_exact_for_a_line_and_ema_lags_behind_it() -> None:
    holt, ema = Holt(0.9), Ema(0.9)
    for t in KNOTS:
        holt.keep(curve(t, 1), t)
        ema.keep(curve(t, 1), t)
    torch.testing.assert_close(holt.at(0.4), curve(0.4, 1), rtol=1e-4, atol=1e-4)
    assert (ema.at(0.4) - curve(0.4, 1)).norm() > (curve(0.5, 1) - curve(0.4, 1)).norm()


def test_with_one_known_value_every_predictor_reuses_it() -> None:
    z = torch.randn(1, 3, 4)
    plain = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    for predictor in (Reuse(), Ema(0.9), Holt(0.9), Taylor(2), Fitted(plain, None)):
        predictor.keep(z, 0.9)
        torch.testing.assert_close(predictor.at(0.1), z)


def test_a_time_evaluated_twice_by_a_second_order_scheduler_does_no_harm() -> None:
    predictor = Taylor(1)
    for t in (1.0, 0.8, 0.8, 0.6):
        predictor.keep(curve(t, 1), t)
    torch.testing.assert_close(predictor.at(0.5), curve(0.5, 1), rtol=1e-4, atol=1e-4)


def test_fitted_equals_taylor_at_the_plain_gains_and_second_order_at_full_gains() -> None:
    basis = torch.linalg.qr(torch.randn(4, 2)).Q
    for gains, order in (([1.0, 0.0, 1.0, 0.0], 1), ([1.0, 1.0, 1.0, 1.0], 2)):
        for directions in (None, basis):
            fitted, taylor = Fitted(torch.tensor([gains]), directions), Taylor(order)
            for t in KNOTS:
                fitted.keep(curve(t, 3), t)
                taylor.keep(curve(t, 3), t)
            torch.testing.assert_close(fitted.at(0.4), taylor.at(0.4), rtol=1e-4, atol=1e-4)


def test_a_subspace_of_full_rank_is_the_whole_space_and_of_rank_one_leaves_the_rest() -> None:
    def forecast(rank: int) -> Tensor:
        one = Subspace(Taylor(1), None, lambda z: principal(gram(z), rank))
        for t in KNOTS:
            one.keep(curve(t, 2), t)
        return one.at(0.4)

    whole = Taylor(1)
    for t in KNOTS:
        whole.keep(curve(t, 2), t)
    torch.testing.assert_close(forecast(4), whole.at(0.4), rtol=1e-4, atol=1e-4)
    last = curve(KNOTS[-1], 2)
    assert torch.linalg.matrix_rank((forecast(1) - last)[0], rtol=1e-3) == 1


def test_energy_names_the_smallest_rank_and_each_item_has_its_own() -> None:
    assert energy_rank(torch.tensor([[8.0, 1.0, 1.0], [4.0, 3.0, 3.0]]), 0.8).tolist() == [1, 3]
    x = torch.randn(2, 50, 6) * torch.tensor([9.0, 1, 1, 1, 1, 1])
    alone = principal(gram(x[:1]), energy=0.8)
    both = principal(gram(x), energy=0.8)
    torch.testing.assert_close(both[:1] @ both[:1].mT, alone @ alone.mT)


def test_the_weights_of_an_interpolation_sum_to_one() -> None:
    assert sum(lagrange([1.0, 0.7, 0.2], 0.1)) == pytest.approx(1)
