"""Write how large each part of a family's published checkpoint is, and what runs in it, without any weight.

    python benchmarks/sizes.py [FAMILY ...]

Every part is built on meta tensors from the class and the configuration that `adapters/ditstack_adapters/model/sizes/
FAMILY.json` declares. What follows from them is written into the same file: parameters, the transformer's tensors with
what each linear reads, and the bytes alive at the peak of one pass and of decoding, for the size that the family's
recipe names. Attention counts as a kernel that keeps no T x T matrix, as PyTorch's does; workspaces are not seen.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ditstack.recipe.recipe import Recipe
from ditstack.testing.allocated import Allocated

FOLDER = Path(__file__).parents[1] / "adapters" / "ditstack_adapters" / "model" / "sizes"
FORM: dict[str, Any] = {"dtype": torch.bfloat16, "device": "meta"}


class _Flash(TorchFunctionMode):
    """Attention as fused kernels answer it: an output, and nothing between."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            given = {**dict(zip(("query", "key", "value"), args, strict=False)), **(kwargs or {})}
            query, value = given["query"], given["value"]
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))


def build(part: dict[str, Any]) -> torch.nn.Module:
    """A part on meta tensors, from its class and where its configuration differs from the class's own."""
    room, _, name = part["class"].partition(".")
    kind = getattr(importlib.import_module(room), name)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            made = kind(**part["config"]) if room == "diffusers" else kind(kind.config_class(**part["config"]))
    finally:
        torch.set_default_dtype(before)
    return made.eval()


def count(module: torch.nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def shapes(transformer: torch.nn.Module, reads: dict[str, str]) -> list[list[Any]]:
    """Every parameter: its name, a star for a block's number; how many there are; its shape; what a linear reads."""
    found: Counter[tuple[str, tuple[int, ...], str]] = Counter()
    for name, one in transformer.named_parameters():
        owner = name.rpartition(".")[0]
        found[re.sub(r"(?<=blocks\.)\d+", "*", name), tuple(one.shape), reads.get(owner, "")] += 1
    return [[name, number, list(shape), read] for (name, shape, read), number in found.items()]


def inputs(family: str, tokens: tuple[int, int, int], text: int, transformer: Any) -> dict[str, Any]:
    """What one row of the family's transformer is called with, for a grid of (frames, height, width) of tokens."""
    frames, high, wide = tokens
    config, count = transformer.config, frames * high * wide
    time = torch.ones(1, **FORM)

    def of(*shape: int) -> torch.Tensor:
        return torch.empty(shape, **FORM)

    latent, mask = of(1, config.in_channels, frames, 2 * high, 2 * wide), torch.ones(1, text, device="meta")
    flat = of(1, config.in_channels, 2 * high, 2 * wide)
    if family == "flux":
        ids = {"txt_ids": of(text, 3), "img_ids": of(count, 3), "guidance": time, "pooled_projections": of(1, 768)}
        return {"hidden_states": of(1, count, 64), "encoder_hidden_states": of(1, text, 4096), "timestep": time, **ids}
    if family == "sd3":
        pooled = {"pooled_projections": of(1, 2048), "timestep": time}
        return {"hidden_states": flat, "encoder_hidden_states": of(1, text, 4096), **pooled}
    if family == "pixart":
        more = {"resolution": of(1, 2), "aspect_ratio": of(1, 1)}
        seen = {"encoder_hidden_states": of(1, text, 4096), "encoder_attention_mask": mask}
        return {"hidden_states": flat, "timestep": time, "added_cond_kwargs": more, **seen}
    if family == "dit":
        return {"hidden_states": flat, "timestep": time, "class_labels": torch.ones(1, dtype=torch.long, device="meta")}
    if family == "qwenimage":
        grid = {"img_shapes": [[(1, high, wide)]], "timestep": time}
        words = {"encoder_hidden_states": of(1, text, 3584), "encoder_hidden_states_mask": mask.bool()}
        return {"hidden_states": of(1, count, 64), **words, **grid}
    if family == "hunyuanvideo":
        pooled = {"pooled_projections": of(1, 768), "guidance": time, "encoder_attention_mask": mask}
        return {"hidden_states": latent, "timestep": time, "encoder_hidden_states": of(1, text, 4096), **pooled}
    if family == "wan":
        return {"hidden_states": latent, "timestep": time, "encoder_hidden_states": of(1, text, 4096)}
    if family == "ltx":
        grid = {"num_frames": frames, "height": high, "width": wide, "encoder_attention_mask": mask}
        grid |= {"timestep": time, "encoder_hidden_states": of(1, text, 4096)}
        return {"hidden_states": of(1, count, 128), **grid}
    assert family == "cogvideox"
    video = latent.transpose(1, 2)
    return {"hidden_states": video, "timestep": time, "encoder_hidden_states": of(1, text, 4096)}


def run(transformer: Any, given: dict[str, Any], image: int, text: int) -> tuple[int, dict[str, str]]:
    """The bytes alive at the peak of one pass, and what each linear reads: picture, text, both, or a row a picture."""
    reads: dict[str, str] = {}
    words = {image: "picture", text: "text", image + text: "both"}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):

            def hear(_: Any, args: Any, name: str = name) -> None:
                x = args[0]
                reads[name] = words.get(x.shape[-2], "row") if x.ndim > 2 else "row"

            module.register_forward_pre_hook(hear)
    with torch.no_grad(), _Flash(), Allocated("meta") as held:
        transformer(**given, return_dict=False)
    return held.peak, reads


def decode(vae: Any, latent: tuple[int, ...]) -> int:
    """The bytes alive at the peak of decoding."""
    with torch.no_grad(), _Flash(), Allocated("meta") as held:
        vae.decode(torch.empty(latent, **FORM), return_dict=False)
    return held.peak


def compact(text: str) -> str:
    """JSON whose lists of numbers, and whose tensors, take a line each."""
    text = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\s+", "", found[0]), text)
    return re.sub(r"\[\s+(\"[^\"]*\"),\s+(\d+),\s+(\[[\d,]*\]),\s+(\"[^\"]*\")\s+\]", r"[\1, \2, \3, \4]", text)


def write(family: str) -> None:
    file = FOLDER / f"{family}.json"
    data = json.loads(file.read_text())
    sampler = Recipe.read(family).sampler
    width, height = data["size"] = sampler.width_height or data["size"]
    unit, moving, text = data["pixels"], data["frames"], data["text"]
    frames = (sampler.frames - 1) // moving + 1 if moving and sampler.frames else 1
    grid = (frames, height // unit, width // unit)
    parts = data["parts"]
    transformer = build(parts["transformer"])
    tokens = grid[0] * grid[1] * grid[2]
    peak, reads = run(transformer, inputs(family, grid, text, transformer), tokens, text)
    vae = build(parts["vae"])
    channels = vae.config.get("latent_channels") or vae.config.get("z_dim")
    factor = 32 if family == "ltx" else 8
    still = (1, channels, height // factor, width // factor)
    pixels = width * height * (sampler.frames or 1)
    data |= {"width": transformer.config.num_attention_heads * transformer.config.attention_head_dim}
    data |= {"bytes_per_token": round(peak / (tokens + text))}
    latent = (*still[:2], frames, *still[2:]) if moving or family == "qwenimage" else still
    data |= {"bytes_per_pixel": round(decode(vae, latent) / pixels, 1)}
    for name, part in parts.items():
        part["parameters"] = count(build(part))
        if name.startswith("transformer"):
            part["tensors"] = shapes(build(part), reads)
    file.write_text(compact(json.dumps(data, indent=1)) + "\n")
    print(
        family,
        {name: f"{part['parameters'] / 1e9:.3f} B" for name, part in parts.items()},
        tokens,
        data["bytes_per_token"],
        data["bytes_per_pixel"],
        f"{peak / 2**30:.2f} GiB",
        Counter(reads.values()),
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "tiny"):
        write(name)
