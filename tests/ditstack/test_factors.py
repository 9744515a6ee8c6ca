"""Factors: what they were fitted to is noticed, and files are whole or refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from ditstack.errors import BadFile, StaleFactors
from ditstack.factors import Factors, checksum, fingerprint, is_factors
from ditstack.testing import tiny_pipelines as tiny

FITTED = {"weights": "abc", "quantize": "int8", "sampler.steps": "28"}


def test_factors_survive_saving_and_loading(tmp_path: Path) -> None:
    factors = Factors({"gains": torch.randn(3, 4), "trunk.basis": torch.randn(8, 2).mT}, FITTED)
    factors.save(tmp_path / "deep" / "f.safetensors")
    back = Factors.load(tmp_path / "deep" / "f.safetensors")
    assert back.conditions == FITTED
    assert all(torch.equal(back.tensors[name], one) for name, one in factors.tensors.items())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["f.safetensors"]


def test_loaded_factors_lie_in_memory_as_fitted_ones_do(tmp_path: Path) -> None:
    """A resumed fit works on loaded sums: where they are aligned otherwise, a matrix product may round otherwise."""
    path = tmp_path / "f.safetensors"
    Factors({name: torch.randn(3, 5) for name in "abcdefgh"}, FITTED).save(path)
    assert {one.data_ptr() % 64 for one in Factors.load(path).tensors.values()} == {0}


@pytest.mark.parametrize(("name", "value"), [("weights", "abd"), ("quantize", "int4"), ("sampler.steps", "27")])
def test_other_conditions_are_refused_by_name(name: str, value: str) -> None:
    factors = Factors({}, FITTED)
    factors.check(dict(FITTED))
    with pytest.raises(StaleFactors, match=f"fitted to another {name};"):
        factors.check({**FITTED, name: value})


def test_a_missing_condition_counts_as_another() -> None:
    with pytest.raises(StaleFactors, match="another cache, quantize;"):
        Factors({}, {"cache": "x"}).check({"quantize": "y"})


@pytest.mark.parametrize("content", [b"", b"not at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_torn_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.safetensors").write_bytes(content)
    with pytest.raises(BadFile, match="is not a whole factors file"):
        Factors.load(tmp_path / "f.safetensors")


def test_a_truncated_file_and_a_missing_one_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    Factors({"gains": torch.randn(100, 4)}, FITTED).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadFile, match="is not a whole factors file"):
        Factors.load(path)
    with pytest.raises(BadFile, match="there is no factors file"):
        Factors.load(tmp_path / "none.safetensors")


def test_every_flipped_bit_of_data_and_header_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    Factors({"gains": torch.randn(5, 4), "half": torch.randn(40).half()}, FITTED).save(path)
    whole = path.read_bytes()
    Factors.load(path)
    for place in range(len(whole)):
        torn = bytearray(whole)
        torn[place] ^= 1 << place % 8
        path.write_bytes(torn)
        with pytest.raises(BadFile, match="is not a whole factors file"):
            Factors.load(path)


def test_a_file_without_a_checksum_or_with_numbers_that_are_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_file({"gains": torch.ones(2)}, path, {"ditstack": json.dumps(FITTED)})
    with pytest.raises(BadFile, match="carries no checksum; write it again with `ditstack calibrate`"):
        Factors.load(path)
    Factors({"gains": torch.tensor([1.0, float("nan")])}, FITTED).save(path)
    with pytest.raises(BadFile, match="gains holds NaN or infinity"):
        Factors.load(path)


def test_words_and_pages_that_changed_places_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    Factors({"basis": torch.randn(300, 1000)}, FITTED).save(path)
    whole = bytearray(path.read_bytes())
    start = len(whole) - 1_200_000
    for size in (8, 512, 4096, 65536):
        moved = whole.copy()
        moved[start : start + size], moved[start + size : start + 2 * size] = (
            whole[start + size : start + 2 * size],
            whole[start : start + size],
        )
        assert checksum(moved) != checksum(whole)


def test_a_refusal_says_what_was_and_what_is() -> None:
    was = {**FITTED, "quantize": json.dumps({"method": "torchao", "scheme": "int8"})}
    now = {**FITTED, "quantize": json.dumps({"method": "torchao", "scheme": "int4"}), "weights": "abd"}
    with pytest.raises(StaleFactors) as refused:
        Factors({}, was).check(now)
    assert "another quantize, weights;" in str(refused.value)
    assert "quantize: scheme was int8, is int4" in str(refused.value)
    assert "weights: was abc, is abd" in str(refused.value)


def test_what_calls_itself_a_factors_file_is_known_though_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    Factors({"gains": torch.ones(100)}, FITTED).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    assert is_factors(path)
    save_file({"gains": torch.ones(2)}, path)
    assert not is_factors(path)
    path.write_bytes(b"my own notes")
    assert not is_factors(path)


def test_one_flipped_bit_another_place_and_another_shape_change_the_fingerprint() -> None:
    module = torch.nn.Linear(64, 64)
    before = fingerprint({"t": module})
    assert fingerprint({"t": module}) == before
    with torch.no_grad():
        module.weight.view(torch.int32)[3, 5] ^= 1
        assert fingerprint({"t": module}) != before
        module.weight.view(torch.int32)[3, 5] ^= 1
        assert fingerprint({"t": module}) == before
        module.weight[[0, 1]] = module.weight[[1, 0]]
    assert fingerprint({"t": module}) != before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool])
def test_every_dtype_has_a_fingerprint(dtype: torch.dtype) -> None:
    module = torch.nn.Module()
    module.register_buffer("one", torch.ones(7).to(dtype))
    zeros = torch.nn.Module()
    zeros.register_buffer("one", torch.zeros(7).to(dtype))
    assert fingerprint({"t": module}) != fingerprint({"t": zeros})


def test_quantized_weights_have_a_fingerprint_of_their_own() -> None:
    first, second = tiny.flux().transformer, tiny.flux().transformer
    assert fingerprint({"t": first}) == fingerprint({"t": second})
    quantize_(first, Int8WeightOnlyConfig())
    changed = fingerprint({"t": first})
    assert changed != fingerprint({"t": second})
    quantize_(second, Int8WeightOnlyConfig())
    assert fingerprint({"t": second}) == changed


def test_equal_factors_are_equal_bytes(tmp_path: Path) -> None:
    factors = Factors({"b": torch.ones(2), "a": torch.zeros(3)}, {**FITTED, "prompt": 'says "é\\n"'})
    for place in range(8):
        factors.save(tmp_path / str(place))
    assert len({(tmp_path / str(place)).read_bytes() for place in range(8)}) == 1
    assert Factors.load(tmp_path / "0").conditions == factors.conditions
