"""Launches and waits for the GPU in every kind of step do not rise above those in docs/speed.md."""

import pytest
import torch

import fake_gpu
import launches
from ditstack.recipe.recipe import Recipe
from results import latest

KNOWN = {row["recipe"]: row for row in latest("launches")["rows"]}
SCHEDULERS = {"flux", "hunyuanvideo", "qwenimage"}
"""Families whose pipelines and schedulers wait for nothing in a step: there any wait would be ours."""

pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_recipe_for_a_gpu_is_counted() -> None:
    assert sorted(KNOWN) == launches.gpu_recipes()


@pytest.mark.parametrize("name", launches.gpu_recipes())
def test_counts_do_not_rise(name: str) -> None:
    now, known = launches.row(name), KNOWN[name]
    assert now["steps"].keys() == known["steps"].keys()
    for kind, counts in now["steps"].items():
        assert counts["launches"] <= known["steps"][kind]["launches"], kind
        assert counts["waits"] <= known["steps"][kind]["waits"], kind
    assert now["waits_once"] <= known["waits_once"]
    if Recipe.read(name).model.method in SCHEDULERS:
        assert {counts["waits"] for counts in now["steps"].values()} == {0}


def test_what_makes_the_host_wait_is_seen() -> None:
    with fake_gpu.counting() as counted:
        x = torch.empty(4, 8, device="cuda")
        assert counted.waits == 0
        torch.tensor(0.5, device=x.device)
        assert counted.waits == 1
        float(x.sum())
        assert counted.waits == 2
        x.cpu()
        torch.ones(3).to(x.device)
        assert counted.waits == 4
        (x > 0).nonzero()
        x[torch.empty(4, dtype=torch.bool, device="cuda")]
        assert counted.waits == 6


def test_a_launch_makes_a_tensor_and_a_view_makes_none() -> None:
    with fake_gpu.counting() as counted:
        x = torch.empty(4, 8, device="cuda")
        torch.full((), 0.5, device=x.device)
        assert (counted.launches, counted.waits) == (1, 0)
        x.T[None, :, 1:3].view(8, -1)
        assert counted.launches == 1
        torch.nn.functional.linear(x, torch.empty(16, 8, device="cuda"))
        q = k = v = x[None, None]
        torch.nn.functional.scaled_dot_product_attention(q, k, v)
        assert counted.launches == 3
