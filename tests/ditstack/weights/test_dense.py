"""Every linear can be read: what dense() says is what multiplies."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ditstack.weights.dense import dense
from ditstack_adapters.quantize.bitsandbytes import BitsAndBytes
from ditstack_adapters.quantize.torchao import TorchAo


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(128, 96).eval()


def of_torchao(scheme: Any) -> Callable[[nn.Linear], nn.Module]:
    def quantized(plain: nn.Linear) -> nn.Module:
        from torchao.quantization import quantize_

        quantize_(plain, TorchAo(scheme=scheme)._config())
        return plain

    return quantized


def of_bitsandbytes(**fields: Any) -> Callable[[nn.Linear], nn.Module]:
    return lambda plain: BitsAndBytes(**fields)._swapped(plain)


BACKENDS: dict[str, tuple[Callable[[nn.Linear], nn.Module], float]] = {
    "plain": (lambda plain: plain, 1e-6),
    "torchao int8": (of_torchao("int8"), 1e-3),
    "torchao int4": (of_torchao("int4"), 1e-5),
    "torchao fp8": (of_torchao("fp8"), 1e-3),
    "bitsandbytes int8": (of_bitsandbytes(scheme="int8"), 1e-2),  # it rounds activations too
    "bitsandbytes nf4": (of_bitsandbytes(scheme="nf4"), 1e-5),
    "bitsandbytes fp4": (of_bitsandbytes(scheme="fp4"), 1e-5),
    "bitsandbytes nf4 twice": (of_bitsandbytes(scheme="nf4", double_quant=True), 1e-5),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_dense_weight_multiplies_as_the_module_does_before_and_after_its_first_call(backend: str) -> None:
    quantize, allowed = BACKENDS[backend]
    module = quantize(linear())
    x = torch.randn(3, 7, 128)
    before = dense(module)
    with torch.inference_mode():
        out = module(x)
    after = dense(module)
    assert before.shape == (96, 128)
    assert before.is_floating_point()
    assert torch.equal(before, after)
    baseline = nn.functional.linear(x, after, module.bias)  # pyright: ignore[reportArgumentType]
    assert (out - baseline).norm() / baseline.norm() < allowed


class Lora(nn.Module):
    """As peft's layers are: a base, and a delta that runs beside it unless it is merged or off."""

    def __init__(self, base: nn.Linear, delta: Tensor) -> None:
        super().__init__()
        self.base_layer, self.delta = base, delta
        self.lora_A = {"one": delta}
        self.active_adapters, self.merged, self.disable_adapters = ["one", "absent"], False, False

    def get_delta_weight(self, name: str) -> Tensor:
        assert name == "one"
        return self.delta


def test_a_lora_that_runs_beside_its_base_is_part_of_the_weight() -> None:
    base, delta = linear(), torch.ones(96, 128)
    lora = Lora(base, delta)
    assert torch.equal(dense(lora), base.weight + delta)
    lora.merged = True
    assert torch.equal(dense(lora), base.weight)
    lora.merged, lora.disable_adapters = False, True
    assert torch.equal(dense(lora), base.weight)


def test_a_layer_of_peft_is_read_with_its_delta() -> None:
    from peft.tuners.lora import LoraConfig
    from peft.tuners.lora.layer import Linear as LoraLinear

    lora = LoraLinear(linear(), "one", LoraConfig(r=4, lora_alpha=8, init_lora_weights=False), r=4, lora_alpha=8)
    x = torch.randn(5, 128)
    baseline = nn.functional.linear(x, dense(lora), lora.base_layer.bias)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(lora(x), baseline, rtol=1e-4, atol=1e-5)
