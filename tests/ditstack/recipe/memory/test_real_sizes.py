"""FLUX.1-dev in its real size, built on a CUDA device that is not there: its weights take what the plan says."""

from typing import Any

import pytest
import torch

import fake_gpu
import launches
from ditstack.assembly.build import build
from ditstack.recipe.memory.planned import planned
from ditstack.recipe.plan import forced
from ditstack.recipe.recipe import Recipe
from models import SHAPES

pytestmark = pytest.mark.filterwarnings("ignore")


def held(weight: Any) -> int:
    """Bytes of a weight, or of what a rounded one is made of."""
    parts = () if isinstance(weight, fake_gpu.FakeTensor) else getattr(weight, "__tensor_flatten__", lambda: ((),))()[0]
    return sum(held(getattr(weight, name)) for name in parts) or weight.numel() * weight.element_size()


def test_rounded_weights_of_flux_take_what_is_planned() -> None:
    recipe = Recipe.read("flux-int8-native-svdcache").with_("uncompiled", compile=None)
    plan = planned(recipe, "cuda")
    assert plan is not None
    pipeline = SHAPES["flux"].make("meta", torch.bfloat16, False)
    with fake_gpu.counting() as counted, launches.standing_in(counted), torch.no_grad(), forced():
        fake_gpu.move(pipeline.transformer)
        build(recipe, pipeline)
        taken = sum(held(weight) for weight in pipeline.transformer.parameters())
    assert taken == pytest.approx(plan.parts["transformer"], rel=1e-3)
    assert taken > 12e9
