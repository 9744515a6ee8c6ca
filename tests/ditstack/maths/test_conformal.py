"""Conformal bounds keep their promise on draws that they have not seen, and promise no more than they can."""

import torch

from ditstack.maths.conformal import bound


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
