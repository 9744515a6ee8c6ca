"""A model that cannot be fetched says what to log in to and what to download."""

import diffusers
import pytest

from ditstack.errors import BadFile
from ditstack.recipe.recipe import Recipe


def test_a_hub_that_gives_nothing_is_answered_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Cannot load model org/name: " + "outgoing traffic has been disabled " * 20 + "\nstacktrace")

    monkeypatch.setattr(getattr(diffusers, "DiffusionPipeline"), "from_pretrained", offline)  # noqa: B009
    with pytest.raises(BadFile) as found:
        Recipe.parse({"model": {"method": "auto", "source": "org/name", "device": "cpu"}}).model.load()
    text = str(found.value)
    assert "hf download org/name" in text
    assert "hf auth login" in text
    assert "https://huggingface.co/org/name" in text
    assert len(text) < 600
    assert "\n" not in text
