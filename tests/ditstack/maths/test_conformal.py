"""Conformal bounds keep their promise on draws that they have not seen, and promise no more than they can."""

import math

import pytest
import torch

from ditstack.maths.conformal import bound, chance, most_broken, pictures_for, proved, unlike


def test_a_further_picture_keeps_every_limit_as_often_as_promised() -> None:
    generator, kept = torch.Generator().manual_seed(0), []
    for _ in range(800):
        # needs of six heads that differ in size and spread, the pictures in difficulty
        needs = torch.rand(17, 1, generator=generator) * torch.rand(17, 6, generator=generator) * torch.arange(1, 7) / 6
        found = bound(needs[:16])
        kept.append(float((needs[16] <= found.limits).all()))
        assert found.witnesses == 8
        assert found.coverage == 8 / 9
    share = sum(kept) / len(kept)
    assert share > 8 / 9 - 0.03, "the plain maximum of six heads over all sixteen keeps fewer"
    assert share < 1


def test_half_of_the_pictures_say_how_needs_differ_and_the_others_raise_them_all() -> None:
    needs = torch.tensor([[0.1, 0.5], [0.2, 0.4], [0.5, 0.3], [0.2, 0.55]])
    found = bound(needs)
    assert torch.allclose(found.limits, torch.tensor([0.2 + 0.3, 0.5 + 0.3]))
    assert abs(found.confidence(0.9) - 0.19) < 1e-9


def test_one_picture_vouches_for_nothing() -> None:
    found = bound(torch.tensor([[0.1, 0.2]]))
    assert found.limits.tolist() == [1, 1]
    assert found.coverage == 0


def test_how_many_pictures_prove_a_share_is_the_binomials() -> None:
    # .98^148 > .05 >= .98^149
    assert pictures_for(0.98, 0.95) == 149
    assert [pictures_for(0.98, 0.95, broken) for broken in (1, 2)] == [236, 313]
    assert [most_broken(count, 0.98, 0.95) for count in (148, 149, 235, 236, 313)] == [-1, 0, 0, 1, 2]
    exact = math.fsum(math.comb(100, one) * 0.02**one * 0.98 ** (100 - one) for one in range(4))
    assert chance(3, 100, 0.98) == pytest.approx(exact, rel=1e-9)
    assert chance(2, 313, proved(2, 313, 0.95)) == pytest.approx(0.05, abs=1e-9)
    assert proved(0, 149, 0.95) == pytest.approx(0.05 ** (1 / 149), abs=1e-9)
    assert proved(2, 313, 0.95) > 0.98 > proved(3, 313, 0.95)


def test_a_share_that_is_not_there_is_proved_no_more_often_than_the_confidence_allows() -> None:
    generator = torch.Generator().manual_seed(0)
    count, share = 236, 0.98
    broken = (torch.rand(4000, count, generator=generator) < 1 - share).sum(1)
    wrongly = float((broken <= most_broken(count, share, 0.95)).double().mean())
    assert 0.03 < wrongly < 0.06


def test_two_samples_of_one_distribution_are_seldom_unlike_and_shifted_ones_are() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(300, 40, generator=generator), torch.randn(300, 240, generator=generator)
    alarms = [unlike(some.tolist(), others.tolist()) < 0.05 for some, others in zip(a, b, strict=True)]
    assert 0.02 < sum(alarms) / len(alarms) < 0.08
    assert unlike((a[0] + 1).tolist(), b[0].tolist()) < 1e-4
    assert unlike([1.0, 1.0], [1.0, 1.0, 1.0]) == 1
