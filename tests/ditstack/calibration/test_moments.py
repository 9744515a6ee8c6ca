"""Sums of calibration: exact on the host, and within their room on a GPU, which a fake one shows at real widths."""

from typing import cast

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ditstack.calibration.moments import Moments

FLUX = {"double": (8 * 19, 3072), "single": (2 * 38, 3072)}
"""Moments of FLUX.1-dev's blocks, how many and how wide: linears that read one tensor share one."""


def flux_calibrated(room_gb: float) -> tuple[Moments, list[int]]:
    """One prompt of two calibrated steps on a GPU that is not there; what lay on it after each sum."""
    moments, held = Moments({}, room_gb), []
    with FakeTensorMode():
        for _ in range(2):
            for part, (count, width) in FLUX.items():
                for number in range(count):
                    moments.add(f"{part} {number}", torch.empty(width, width, device="cuda"))
                    held.append(moments.held_bytes)
        moments.settle()
    return moments, held


@pytest.mark.parametrize("room_gb", [0.0, 1.0, 20.0])
def test_a_gpu_never_holds_more_than_there_is_room_for(room_gb: float) -> None:
    moments, held = flux_calibrated(room_gb)
    whole = sum(count * width * width * 4 for count, width in FLUX.values())
    assert max(held) == moments.most <= min(room_gb * 1e9, whole)
    assert moments.held_bytes == 0
    assert len(moments.sums) == sum(count for count, _ in FLUX.values())
    assert {(one.device.type, one.dtype) for one in moments.sums.values()} == {("cpu", torch.float64)}


def test_sums_are_exact_whether_they_wait_on_the_gpu_or_not() -> None:
    draws = [torch.randn(4, 4, generator=torch.Generator().manual_seed(one)) for one in range(20)]
    want = torch.stack(draws).double().sum(0)
    host = Moments({})
    with torch.inference_mode():
        for one in draws:
            host.add("a", one.clone())
    assert torch.equal(host.sums["a"], want)
    held = Moments({}, 1.0)
    for place, one in enumerate(draws):
        held.add("a", cast(Tensor, _OnGpu(one)))
        if place % 5 == 4:
            held.settle()
    torch.testing.assert_close(held.sums["a"], want, rtol=1e-5, atol=1e-5)
    assert held.most == draws[0].numel() * 4


class _OnGpu:
    """Of a tensor on a GPU, what a sum asks for."""

    device = torch.device("cuda")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.clone()

    def numel(self) -> int:
        return self.tensor.numel()

    def element_size(self) -> int:
        return self.tensor.element_size()

    def add_(self, other: "_OnGpu") -> None:
        self.tensor.add_(other.tensor)

    def cpu(self) -> Tensor:
        return self.tensor
