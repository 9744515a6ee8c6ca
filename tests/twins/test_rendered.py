"""What the twins learn from is what their captions say, by the checkers that judge them."""

import numpy as np
import torch

from testbed.words import LENGTH, t5_tokenizer
from twinning import flux2, hunyuanvideo, moving
from twinning.canvas import render
from twinning.words import CROPPED, MARK, llama_tokenizer
from twinning.words import LENGTH as CLIP_WORDS


def test_the_checker_agrees_with_rendered_scenes_at_both_resolutions() -> None:
    rng = np.random.default_rng(0)
    scenes = [flux2.scene(rng) for _ in range(24)]
    for side in (flux2.SIDE // 2, flux2.SIDE):
        pictures = torch.from_numpy(render(scenes, rng, side)).permute(0, 3, 1, 2)
        assert all(all(one.values()) for one in flux2.TWIN.agreement(pictures, [str(scene) for scene in scenes]))


def test_the_checker_follows_rendered_motion_and_no_other() -> None:
    rng = np.random.default_rng(0)
    clips = [moving.random_clip(rng, unseen) for unseen in (True, False) for _ in range(8)]
    made = hunyuanvideo.videos(clips, rng).permute(0, 2, 1, 3, 4) / 2 + 0.5
    assert all(all(one.values()) for one in hunyuanvideo.TWIN.agreement(made, [str(clip) for clip in clips]))
    backwards = hunyuanvideo.TWIN.agreement(made.flip(1), [str(clip) for clip in clips])
    still = [clip.motion == "still" for clip in clips]
    assert [one["motion"] for one in backwards] == still
    assert any(still)


def test_a_caption_of_a_clip_says_what_the_clip_holds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        clip = moving.omit(moving.random_clip(rng, unseen=False), rng, 0.3)
        assert moving.parse(str(clip)) == clip


def test_the_template_becomes_as_many_marks_as_the_pipeline_cuts_off() -> None:
    words = llama_tokenizer()
    ids = words(hunyuanvideo.TEMPLATE.format("a yellow triangle standing still on a black background")).input_ids
    assert words.convert_ids_to_tokens(ids[:CROPPED]) == [MARK] * CROPPED
    assert words.convert_ids_to_tokens(ids[CROPPED:])[:3] == ["a", "yellow", "triangle"]
    assert len(ids) - CROPPED <= CLIP_WORDS
    assert words.unk_token_id not in ids


def test_the_longest_scene_loses_no_word_to_the_text_length() -> None:
    longest = "a red circle and a blue square and a green star on a checkered gray background"
    assert len(t5_tokenizer()(longest).input_ids) <= LENGTH + 1  # the end of the text may be cut off
