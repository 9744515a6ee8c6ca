"""Bench: pictures come in batches, figures are per picture, and quantized weights count as they are stored."""

import torch

from ditstack.assembly.sample import Pictures
from ditstack.measure.bench import PAIRS, bytes_of, race, trial
from ditstack.recipe.recipe import Recipe
from ditstack.report import peak_memory, reset_peak_memory


def test_a_trial_in_batches_is_the_trial_at_once() -> None:
    recipe = Recipe.read("tiny-none-native-reuse", ["sampler.steps=2", "cache.interval=2"])
    told: list[int] = []
    parts, whole = trial(recipe, recipe.prompts[:3], 2, told.append), trial(recipe, recipe.prompts[:3])
    assert told == [2, 3]
    assert torch.allclose(parts.pictures.images, whole.pictures.images, atol=1e-5)
    assert parts.pictures.seeds == [0, 1, 2]
    assert 0 < parts.macs_ratio == whole.macs_ratio < 0.6
    assert 0 < parts.seconds < 60


def test_quantized_weights_are_smaller() -> None:
    plain, int8 = (
        trial(Recipe.read("tiny", ["sampler.steps=1", *more]), ["a red circle"]).weight_bytes
        for more in ([], ["quantize={method: torchao, scheme: int8}"])
    )
    assert 0.2 < int8 / plain < 0.6
    assert bytes_of(torch.zeros(3, 5, dtype=torch.bfloat16)) == 30


def test_peak_memory_starts_afresh() -> None:
    reset_peak_memory()
    before = peak_memory()
    block = torch.ones(40_000_000)
    assert peak_memory() - before > 100_000_000
    del block
    reset_peak_memory()
    assert peak_memory() - before < 100_000_000


class Runner:
    """Takes a known time, on a machine that slows down."""

    def __init__(self, seconds: float, order: list[float]) -> None:
        self.seconds, self.order = seconds, order

    def sample(self, *_: object) -> Pictures:
        self.order.append(self.seconds)
        slower = 1 + (len(self.order) - 1) // 2  # the same for both of a pair
        return Pictures(torch.zeros(1), torch.zeros(1), {"denoise": self.seconds * slower}, {}, 0)


def test_pairs_are_interleaved_so_that_a_machine_that_slows_down_slows_both() -> None:
    order: list[float] = []
    pace = race(Runner(1.0, order), Runner(3.0, order), ["a"])  # pyright: ignore[reportArgumentType]
    assert pace.speedup.mean == pace.speedup.low == pace.speedup.high == 3
    assert (pace.seconds.low, pace.seconds.mean, pace.seconds.high) == (1, 3.5, 6), "of the stack's own runs"
    assert len(order) == 2 * PAIRS
    assert order[:4] == [3.0, 1.0, 1.0, 3.0], "each leads in turn"
