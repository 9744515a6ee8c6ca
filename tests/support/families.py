"""Every model family on its tiny pipeline: a stack on it, pictures from it, and what its counters must say."""

from typing import Any
from zlib import crc32

from ditstack import apply
from ditstack.assembly.sample import Pictures, sample
from ditstack.recipe.adapter import find
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny

STEPS, SEED = 6, 5
PROMPTS = ["a red circle", "a blue star"]
MODELS = {
    "flux": "flux",
    "flux_img2img": "flux",
    "flux_fill": "flux",
    "flux_kontext": "flux",
    "sd3": "sd3",
    "pixart": "pixart",
    "pixart_sigma": "pixart",
    "dit": "dit",
    "wan": "wan",
    "wan_two_transformers": "wan",
    "hunyuan_video": "hunyuanvideo",
    "qwen_image": "qwenimage",
    "ltx": "ltx",
    "cogvideo": "cogvideox",
    "auraflow": "auto",
    "sana": "auto",
    "lumina2": "auto",
    "chroma": "auto",
    "z_image": "zimage",
    "flux2": "flux2",
    "flux2_klein": "flux2",
    "qwen_image_edit": "qwenimage",
    "wan_i2v": "wan",
    "wan_5b": "wan",
    "wan_5b_i2v": "wan",
    "hunyuan_video_15": "hunyuanvideo15",
    "ltx2": "ltx2",
}
"""The word in the recipe."""
FULL_AND_SKIPPED = {
    "flux_img2img": (2, 1),  # it starts half-way
    "wan_i2v": (4, 2),
    "wan_two_transformers": (4, 2),  # the second transformer's first pass is full
}
"""Steps of a cache with interval 2; three of each where nothing is said."""


def stand(family: str, method: str = "", **stages: Any) -> Stack:
    """A family's tiny pipeline with these stages on it."""
    pipeline = tiny.FAMILIES[family]()
    model: dict[str, Any] = {"method": method or MODELS[family], "device": "cpu"}
    if getattr(find("model", model["method"]), "traced", False):
        model["arguments"] = tiny._of_class(type(pipeline).__name__, 1)
    return apply(pipeline, Recipe.parse({"model": model, **stages, "sampler": {"steps": STEPS}}))


def make(stack: Stack, family: str, items: slice = slice(None), **sampler: Any) -> Pictures:
    """Pictures through `sample`, one picture to start from for all prompts."""
    extra = tiny._of_class(type(stack.pipeline).__name__, 1)
    extra.pop("true_cfg_scale", None)
    prompts = [str(crc32(prompt.encode()) % 1000) if family == "dit" else prompt for prompt in PROMPTS]
    seeds = [SEED, SEED + 1]
    how = stack.recipe.sampler.model_copy(update=sampler)
    guided = {"guidance": 1.0} if family.startswith("qwen_image") and not sampler else {}
    return sample(stack.pipe, prompts[items], seeds[items], how.model_copy(update=guided), extra=extra)


def steps_of(family: str, word: str) -> dict[str, int]:
    """How many steps run in full and how many are skipped, `word` being the cache's for that."""
    full, skipped = FULL_AND_SKIPPED.get(family, (3, 3))
    return {"full": full, word: skipped} if word else {"full": full + skipped}
