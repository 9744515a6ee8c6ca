"""The embedded pipeline loads offline as it is and paints what its captions say."""

from pathlib import Path

import pytest
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

from ditstack_adapters.model.embedded.checker import score
from ditstack_adapters.model.embedded.shapes import unseen_prompts
from testbed.score import paint
from testbed.words import WORDS, clip_tokenizer, t5_tokenizer

ADAPTERS = Path(__file__).parents[2] / "adapters" / "ditstack_adapters"
FOLDER = ADAPTERS / "model" / "embedded" / "tiny"


@pytest.fixture(scope="module")
def pipe() -> FluxPipeline:
    loaded = FluxPipeline.from_pretrained(FOLDER)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_the_folder_is_at_most_12_megabytes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) <= 12e6


def test_every_word_is_one_token_for_both_encoders(pipe: FluxPipeline) -> None:
    for word in WORDS:
        assert len(pipe.tokenizer(word).input_ids) == 3  # start, word, end
        assert len(pipe.tokenizer_2(word).input_ids) == 2  # word, end


def test_the_words_still_have_the_numbers_that_were_trained(pipe: FluxPipeline) -> None:
    for fresh, shipped in ((clip_tokenizer(), pipe.tokenizer), (t5_tokenizer(), pipe.tokenizer_2)):
        assert [fresh(word).input_ids for word in WORDS] == [shipped(word).input_ids for word in WORDS]


def test_held_out_captions_are_painted(pipe: FluxPipeline) -> None:
    prompts = unseen_prompts(8)
    pictures = paint(pipe, prompts, steps=12, guidance=2.5, seed=0)
    assert score(pictures, prompts)["all"] >= 0.75
    assert score(pictures, prompts[1:] + prompts[:1])["all"] == 0


def test_a_picture_does_not_depend_on_its_batch(pipe: FluxPipeline) -> None:
    prompts = unseen_prompts(3)
    together = paint(pipe, prompts, steps=4, guidance=2.5, seed=0, size=3)
    alone = paint(pipe, prompts, steps=4, guidance=2.5, seed=0, size=1)
    assert abs(together - alone).max() < 1e-3


def test_the_lora_brings_four_unguided_steps_near_the_guided_picture(pipe: FluxPipeline) -> None:
    prompts = unseen_prompts(4)
    guided = paint(pipe, prompts, steps=12, guidance=2.5, seed=0)
    before = paint(pipe, prompts, steps=4, guidance=1.0, seed=0)
    pipe.load_lora_weights(str(ADAPTERS / "distill" / "embedded" / "tiny-4step-lora"))
    after = paint(pipe, prompts, steps=4, guidance=1.0, seed=0)
    pipe.unload_lora_weights()
    assert ((after - guided) ** 2).mean() < ((before - guided) ** 2).mean() / 2
