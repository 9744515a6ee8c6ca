"""A part of the combination table, one cell for each family and every value among them, is run again and must agree."""

import pytest

from combinations import ATTENTION, CACHE, QUANTIZE, SKIPPED, WORDS, Plain, cell
from families import MODELS
from results import latest

PART = [(family, *WORDS[place * 17 % len(WORDS)]) for place, family in enumerate(MODELS)]


@pytest.mark.parametrize("words", PART, ids=" ".join)
def test_a_combination_ends_as_the_committed_table_says(words: tuple[str, str, str, str]) -> None:
    family, quantize, attention, cache = words
    assert cell(Plain(family), quantize, attention, cache) == latest("combinations")["cells"][" ".join(words)]


def test_the_part_holds_every_value_and_the_table_every_combination() -> None:
    values = [set(one) for one in zip(*PART, strict=True)]
    assert values == [set(MODELS), set(QUANTIZE), set(ATTENTION), set(CACHE)]
    names = {" ".join((family, *words)) for family in MODELS for words in WORDS}
    assert latest("combinations")["cells"].keys() == names


def test_wrong_counters_are_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Plain("dit")
    assert cell(plain, "none", "native", "reuse").startswith("ran: 3 full + 3 reused steps")
    monkeypatch.setitem(SKIPPED, "reuse", "forecast")
    assert cell(plain, "none", "native", "reuse").startswith("failed: steps")
    plain.attentions += 1
    assert "wanted 4 in each of 6 full passes" in cell(plain, "none", "int8qk", "none")
    monkeypatch.setitem(QUANTIZE, "int8", {"method": "torchao", "scheme": "fp8dq"})
    assert cell(plain, "int8", "native", "none").startswith("refused: quantize torchao requires that")
