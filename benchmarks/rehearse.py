"""Pipelines as their users have them, with prompts encoded beforehand, so that a call is denoising and nothing else."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ditstack.compat import hush_loading
from ditstack.recipe.recipe import Recipe
from models import embeddings, flux

TEXT_TOKENS, PIXELS, WIDTH = 76, 512, 768
PROMPT = "a red circle in the top left on a plain gray background"


def pipeline(model: str) -> Any:
    """`tiny`, the embedded model, or `flux`: 12 blocks of width 768 with random weights."""
    if model == "flux":
        return flux(WIDTH, 4, 8)
    hush_loading()
    loaded = Recipe.read("tiny").model.load()
    loaded.set_progress_bar_config(disable=True)
    return loaded


def arguments(model: str, pipe: Any, steps: int) -> dict[str, Any]:
    """Of a call that returns latents: one picture, guided as the model's users guide it."""
    if model == "flux":
        return {**embeddings(pipe, TEXT_TOKENS), "height": PIXELS, "width": PIXELS, "num_inference_steps": steps}
    given, pooled, _ = pipe.encode_prompt(PROMPT, None, max_sequence_length=16)
    empty, empty_pooled, _ = pipe.encode_prompt("", None, max_sequence_length=16)
    return {
        "prompt_embeds": given,
        "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": empty,
        "negative_pooled_prompt_embeds": empty_pooled,
        "true_cfg_scale": 3.0,
        "height": 64,
        "width": 64,
        "num_inference_steps": steps,
        "output_type": "latent",
    }


def denoise(pipe: Any, call: dict[str, Any]) -> tuple[float, Tensor]:
    """Seconds of one call, and its latents."""
    generator = torch.Generator().manual_seed(2)
    started = time.perf_counter()
    with torch.inference_mode():
        latents = pipe(**{**call, "generator": generator}).images
    return time.perf_counter() - started, latents


def paint(pipe: Any, prompts: list[str], seeds: list[int], steps: int, guidance: float) -> Tensor:
    """Pictures of the embedded model from a pipeline without a stack, just as a stack samples them."""
    with torch.inference_mode():
        out = pipe(
            prompt=prompts,
            negative_prompt=[""] * len(prompts),
            true_cfg_scale=guidance,
            num_inference_steps=steps,
            max_sequence_length=16,
            height=64,
            width=64,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        )
    return out.images.float()
