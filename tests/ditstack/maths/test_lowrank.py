"""Truncated and regressed maps against answers known beforehand."""

import pytest
import torch
from torch import Tensor

from ditstack.maths import lowrank
from ditstack.maths.lowrank import allocate, channel_scale, gram, leading, observed_map, principal, regress, truncate


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def miss(pair_up: Tensor, pair_down: Tensor, weight: Tensor, x: Tensor) -> float:
    return float((x @ (weight - pair_up @ pair_down).mT).square().mean())


@pytest.mark.parametrize(("height", "width"), [(12, 12), (20, 8), (8, 20)])
def test_at_full_rank_every_fit_is_the_weight(height: int, width: int) -> None:
    weight, x = draw(height, width), draw(50, width, seed=1)
    y = x @ weight.mT
    scales = draw(height, seed=2).abs() + 0.1, draw(width, seed=3).abs() + 0.1
    metric = draw(height, height, seed=4)
    pairs = [
        truncate(weight),
        truncate(weight, *scales),
        regress(weight, x.mT @ x),
        regress(weight, x.mT @ x, metric @ metric.mT),
        regress(weight, x.mT @ x, scales[0]),
    ]
    if height < width:
        pairs.append(regress(weight, y.mT @ y))
    for pair in pairs:
        torch.testing.assert_close(pair.up @ pair.down, weight)


def test_regression_finds_the_subspace_in_which_increments_lie() -> None:
    inside = torch.linalg.qr(draw(16, 3)).Q
    x = draw(200, 3, seed=1) @ inside.mT
    weight = draw(16, 16, seed=2)
    fitted, truncated = regress(weight, x.mT @ x).cut(3), truncate(weight).cut(3)
    assert miss(fitted.up, fitted.down, weight, x) < 1e-9
    assert miss(truncated.up, truncated.down, weight, x) > 1


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_input_side_and_output_side_agree_and_no_other_fit_is_better(rank: int) -> None:
    x = draw(300, 16) * torch.logspace(0, -2, 16, dtype=torch.float64)
    weight = draw(12, 16, seed=1)
    y = x @ weight.mT
    by_x, by_y = regress(weight, x.mT @ x).cut(rank), regress(weight, y.mT @ y).cut(rank)
    torch.testing.assert_close(by_x.up @ by_x.down, by_y.up @ by_y.down, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(by_x.energy, by_y.energy, rtol=1e-5, atol=1e-6)
    scaled = truncate(weight, None, x.square().mean(0).sqrt()).cut(rank)
    best = miss(by_x.up, by_x.down, weight, x)
    assert best < miss(scaled.up, scaled.down, weight, x)
    # what is left is what the further components hold
    left = regress(weight, x.mT @ x).energy[rank:].sum() / x.shape[0] / weight.shape[0]
    assert best == pytest.approx(float(left), rel=1e-4)


def test_a_metric_moves_the_rank_to_the_outputs_that_count() -> None:
    weight, x = torch.eye(6, dtype=torch.float64), draw(500, 6)
    counts = torch.tensor([1, 1, 1, 1, 1, 100.0], dtype=torch.float64)
    one = regress(weight * torch.tensor([3, 1, 1, 1, 1, 1.0], dtype=torch.float64), x.mT @ x, counts).cut(1)
    assert int((one.up @ one.down).diagonal().abs().argmax()) == 5


def test_channel_scales_by_hand() -> None:
    # min-max per sample: (0, .5, 1) and (0, 0, 1); mean (0, .25, 1); power .5; at least a thousandth of the largest
    activity = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 9.0]])
    torch.testing.assert_close(channel_scale(activity), torch.tensor([0.001, 0.5, 1.0]))
    torch.testing.assert_close(channel_scale(torch.ones(2, 3)), torch.ones(3))


def test_scaled_truncation_by_hand() -> None:
    # S_o W S_i = diag(1 * 2 * 1, 3 * 1 * 4) keeps its second component; the scales are taken out again
    weight = torch.diag(torch.tensor([2.0, 1.0]))
    pair = truncate(weight, torch.tensor([1.0, 3.0]), torch.tensor([1.0, 4.0])).cut(1)
    torch.testing.assert_close(pair.up @ pair.down, torch.diag(torch.tensor([0.0, 1.0])))
    assert float(pair.energy) == pytest.approx(144)


def test_an_observed_map_is_the_linear_that_made_the_outputs() -> None:
    weight, x = draw(5, 7), draw(400, 7, seed=1)
    y = x @ weight.mT
    nothing = torch.zeros_like(weight)
    torch.testing.assert_close(observed_map(nothing, x.mT @ x, y.mT @ x, 1e-9), weight, rtol=1e-6, atol=1e-6)
    unseen = torch.zeros(7, 7, dtype=torch.float64)
    torch.testing.assert_close(observed_map(weight, torch.zeros_like(unseen), unseen[:5]), weight)


def test_rank_goes_where_it_pays_and_the_budget_is_kept() -> None:
    strong, weak = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2]), torch.full((8,), 0.1)
    ranks = allocate({"a": strong, "b": weak}, {"a": 1.0, "b": 1.0}, budget=8.0)
    assert ranks == {"a": 6, "b": 2}
    dear = allocate({"a": strong, "b": weak}, {"a": 100.0, "b": 1.0}, budget=404.0)
    assert dear["a"] * 100 + dear["b"] <= 404
    assert dear["b"] == 8
    assert sum(allocate({"a": strong, "b": weak}, {"a": 1.0, "b": 1.0}, 1e9).values()) == 16


@pytest.mark.parametrize("size", [{"rank": 24}, {"energy": 0.95}])
def test_in_wide_features_the_leading_directions_are_found_without_a_whole_decomposition(
    size: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    strengths = torch.logspace(0, -4, 200)
    inside = torch.linalg.qr(draw(1152, 200).float()).Q
    x = torch.stack([draw(300, 200, seed=seed).float() * strengths for seed in (1, 2)]) @ inside.mT
    products = gram(x)
    whole = principal(products, **size)
    widest: list[int] = []
    found_by = torch.linalg.eigh

    def eigh(one: Tensor) -> object:
        widest.append(one.shape[-1])
        return found_by(one)

    monkeypatch.setattr(torch.linalg, "eigh", eigh)
    found = leading(products, **size)
    assert max(widest) < 1152 / 4
    assert found.shape == whole.shape
    torch.testing.assert_close(found @ (found.mT @ x.mT), whole @ (whole.mT @ x.mT), rtol=0, atol=2e-3)
    # an item's directions do not depend on its neighbour
    alone = leading(products[1:], **size)
    torch.testing.assert_close(alone[0], found[1, :, : alone.shape[-1]], rtol=0, atol=1e-6)


def test_features_that_lie_in_no_few_directions_are_decomposed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowrank, "WIDE", 64)
    products = gram(draw(1, 500, 64).float())
    assert torch.equal(leading(products, energy=0.9), principal(products, energy=0.9))


@pytest.mark.parametrize(("height", "width"), [(24, 8), (8, 24)])
def test_the_largest_matrix_that_is_decomposed_is_as_small_as_it_can_be(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def svd(*_: object, **__: object) -> object:
        raise AssertionError("a singular value decomposition takes many times as long")

    widest: list[int] = []
    found_by = torch.linalg.eigh

    def eigh(one: Tensor) -> object:
        widest.append(one.shape[-1])
        return found_by(one)

    monkeypatch.setattr(torch.linalg, "svd", svd)
    monkeypatch.setattr(torch.linalg, "eigh", eigh)
    weight, x = draw(height, width), draw(50, width, seed=1)
    truncate(weight)
    regress(weight, x.mT @ x)
    assert max(widest) == min(height, width)
