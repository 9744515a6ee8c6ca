"""LoRA files for the tiny FLUX, and recipes that name them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing.tiny_pipelines import call

P = ["a red circle", "a blue star"]
WIDTH, RANK, STEPS = 128, 4, 3
BLOCK = "transformer_blocks.0.attn"
MODULES = (f"{BLOCK}.to_q", f"{BLOCK}.to_v", f"{BLOCK}.to_out.0", "single_transformer_blocks.1.attn.to_k")
Write = Callable[..., str]


def writer(folder: Path) -> Write:
    """Writes files of random weights into a folder."""

    def write(
        name: str = "one.safetensors", modules: tuple[str, ...] = MODULES, size: float = 0.03, width: int = WIDTH
    ) -> str:
        torch.manual_seed(len(name))
        tensors = {}
        for module in modules:
            tensors[f"transformer.{module}.lora_A.weight"] = torch.randn(RANK, width)
            tensors[f"transformer.{module}.lora_B.weight"] = size * torch.randn(width, RANK)
        save_file(tensors, folder / name)
        return str(folder / name)

    return write


def change(source: str, module: str = MODULES[0]) -> torch.Tensor:
    """What a file adds to a linear's weight."""
    tensors = load_file(source)
    return tensors[f"transformer.{module}.lora_B.weight"] @ tensors[f"transformer.{module}.lora_A.weight"]


def recipe(source: str, quantize: Any = None, **fields: Any) -> Recipe:
    sampler = {"steps": STEPS, "size": "16x16"}
    data = {"model": {"method": "flux", "device": "cpu"}, "quantize": quantize, "sampler": sampler}
    return Recipe.parse({**data, "distill": {"method": "lora", "source": source, **fields}}, "mine")


def run(stack: Stack, prompts: list[str] = P) -> torch.Tensor:
    return call(stack.pipeline, prompts, STEPS, output_type="latent")
