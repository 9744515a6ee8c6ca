"""torchao: what a scheme wants of a GPU, of later stages and of widths; and which linears it leaves alone."""

from typing import Any

import pytest
import torch
from torchao.quantization.granularity import PerRow, PerTensor

from ditstack.assembly.build import build
from ditstack.recipe import capabilities
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.plan import plan
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny
from ditstack_adapters.quantize.torchao import DYNAMIC, TorchAo


def recipe(device: str, scheme: str, **stages: Any) -> Recipe:
    quantize = {"method": "torchao", "scheme": scheme}
    return Recipe.parse({"model": {"method": "flux", "device": device}, "quantize": quantize, **stages}, "rounded")


def reasons(monkeypatch: pytest.MonkeyPatch, gpu: tuple[int, int], scheme: str, **stages: Any) -> str:
    monkeypatch.setattr(capabilities, "compute_capability", lambda device: (0, 0) if device == "cpu" else gpu)
    found = plan(recipe("cuda", scheme, **stages))
    return "\n".join(reason for step in found if step.stage == "quantize" for reason in step.reasons)


@pytest.mark.parametrize("scheme", DYNAMIC)
def test_rounded_activations_are_refused_on_a_gpu_unless_compiled(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"quantize torchao requires that {Capability.FUSED.sentence}" in reasons(monkeypatch, (10, 0), scheme)
    assert not reasons(monkeypatch, (10, 0), scheme, compile="inductor")
    assert not [one for step in plan(recipe("cpu", "int8dq")) for one in step.reasons]
    assert not reasons(monkeypatch, (10, 0), "int8")


@pytest.mark.parametrize(
    ("scheme", "least"),
    [("fp8dq", (8, 9)), ("fp8dq_tensor", (8, 9)), ("mxfp8", (10, 0)), ("nvfp4", (10, 0))],
)
def test_what_a_gpu_must_have_is_a_fact(scheme: str, least: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    older = (least[0] - 1, 9) if least[1] == 0 else (8, least[1] - 1)
    sentence = f"compute capability {least[0]}.{least[1]} or newer"
    assert sentence in reasons(monkeypatch, older, scheme, compile="inductor")
    assert sentence not in reasons(monkeypatch, least, scheme, compile="inductor")


def test_fp8_has_a_scale_for_each_row_unless_it_is_asked_for_one() -> None:
    assert TorchAo(scheme="fp8dq")._config().granularity == [PerRow(), PerRow()]
    assert TorchAo(scheme="fp8dq_tensor")._config().granularity == [PerTensor(), PerTensor()]
    assert type(TorchAo(scheme="mxfp8")._config()).__name__ == "MXDynamicActivationMXWeightConfig"
    assert type(TorchAo(scheme="nvfp4")._config()).__name__ == "NVFP4DynamicActivationNVFP4WeightConfig"


@pytest.mark.parametrize(("scheme", "wide"), [("int8", 24), ("fp8dq", 24), ("mxfp8", 48), ("int4", 48)])
def test_widths_that_its_products_cannot_take_are_left_alone(scheme: str, wide: int) -> None:
    adapter = TorchAo(scheme=scheme)  # pyright: ignore[reportArgumentType]
    assert adapter.takes(torch.nn.Linear(64, 64), "attn.to_q")
    assert adapter.takes(torch.nn.Linear(wide, 64), "attn.to_q") == (scheme == "int8")


def test_it_says_which_linears_it_left_alone() -> None:
    pipe = build(recipe("cpu", "int8"), tiny.flux())
    (note,) = pipe.notes
    assert note == (
        "quantize torchao int8 left alone, of the blocks' linears: "
        "norm1.linear (2), norm1_context.linear (2), norm.linear (3)"
    )
