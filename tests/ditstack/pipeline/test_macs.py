"""Multiply-accumulates, counted against sums done by hand."""

import torch
from torch.nn import functional as F
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from ditstack.pipeline.macs import MacCounter


def test_a_linear_costs_rows_times_inputs_times_outputs_quantized_or_not() -> None:
    plain, rounded = torch.nn.Linear(64, 32), torch.nn.Linear(64, 32)
    quantize_(rounded, Int8WeightOnlyConfig())
    for linear in (plain, rounded):
        with MacCounter() as counter, torch.no_grad():
            linear(torch.randn(5, 7, 64))
        assert counter.total == 5 * 7 * 64 * 32


def test_attention_costs_two_products() -> None:
    q, k = torch.randn(2, 3, 10, 8), torch.randn(2, 3, 20, 8)
    with MacCounter() as counter:
        F.scaled_dot_product_attention(q, k, k)
    assert counter.total == 2 * (2 * 3 * 10 * 20 * 8)


def test_products_and_convolutions_are_counted_and_sums_are_not() -> None:
    a, b = torch.randn(4, 6), torch.randn(6, 5)
    with MacCounter() as counter:
        _ = a @ b
        torch.addmm(torch.zeros(5), a, b)
        torch.nn.Conv2d(3, 8, 3, padding=1)(torch.randn(1, 3, 10, 10))
        _ = a + a
    assert counter.total == 2 * 4 * 6 * 5 + 8 * 10 * 10 * 3 * 9
