"""Metrics that look through trained networks of others. Nothing is downloaded here: what is not at hand says how to
get it, in one sentence, and its metric is left out."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditstack.maths.fidelity import require_equal_sizes, stills

# B pictures, C channels, H height, W width, D features

CLIP = "openai/clip-vit-large-patch14"
ALEXNET, INCEPTION = "alexnet-owt-7be5be79.pth", "weights-inception-2015-12-05-6726825d.pth"
IMAGE_REWARD = Path("~/.cache/ImageReward/ImageReward.pt")
QUALITY = "pip install 'ditstack[quality]'"


def no_torchmetrics() -> str:
    return _lacking("MS-SSIM", {"torchmetrics": QUALITY})


def no_lpips() -> str:
    fetch = "python -c \"import torchvision as t; t.models.alexnet(weights='DEFAULT')\""
    return _lacking("LPIPS", {"torchmetrics": QUALITY, "torchvision": "pip install torchvision"}, _hub(ALEXNET), fetch)


def no_inception() -> str:
    fetch = 'python -c "import torchmetrics.image as i; i.FrechetInceptionDistance()"'
    packages = {"torchmetrics": QUALITY, "torch_fidelity": "pip install torch-fidelity"}
    return _lacking("FID and KID", packages, _hub(INCEPTION), fetch)


def no_clip() -> str:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(CLIP, "model.safetensors")
    here = Path(found) if isinstance(found, str) else Path(CLIP)
    return _lacking("CLIP score", {}, here, f"hf download {CLIP}")


def no_image_reward() -> str:
    fetch = "python -c \"import ImageReward; ImageReward.load('ImageReward-v1.0')\""
    return _lacking("ImageReward", {"ImageReward": "pip install image-reward"}, IMAGE_REWARD.expanduser(), fetch)


def lpips(images: Tensor, baseline: Tensor) -> list[float]:
    """Learned perceptual distance through AlexNet (Zhang et al. 2018); of a video, the mean over its frames."""
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    require_equal_sizes(images, baseline)
    pairs = (stills(images).clamp(0, 1), stills(baseline).clamp(0, 1))
    values = learned_perceptual_image_patch_similarity(*pairs, net_type="alex", reduction="none", normalize=True)
    return values.reshape(len(images), -1).mean(1).tolist()


def clip_score(images: Tensor, prompts: list[str]) -> list[float]:
    """100 times the cosine between picture and prompt in CLIP's space, not below 0; of a video, its frames' mean."""
    model, processor = _clip()
    frames = stills(images)
    per_item = len(frames) // len(images)
    with torch.inference_mode():
        seen = processor(images=_bytes(frames), return_tensors="pt")
        read = processor(text=prompts, return_tensors="pt", padding=True, truncation=True)
        out = model(**seen, **read)
    pictures = torch.nn.functional.normalize(out.image_embeds, dim=-1).reshape(len(images), per_item, -1)
    texts = torch.nn.functional.normalize(out.text_embeds, dim=-1)[:, None]
    return (100 * (pictures * texts).sum(-1)).clamp_min(0).mean(1).tolist()


def image_reward(images: Tensor, prompts: list[str]) -> list[float]:
    """The reward model's score (Xu et al. 2023) of each picture; of a video, of its middle frame."""
    from PIL import Image

    middle = images[:, images.shape[1] // 2] if images.ndim == 5 else images
    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in _bytes(middle)]
    model = _image_reward()
    return [float(model.score(prompt, picture)) for prompt, picture in zip(prompts, pictures, strict=True)]


def inception(images: Tensor) -> Tensor:
    """(B, 2048) of every frame: the pooled features that FID is defined on."""
    network = _inception()
    with torch.inference_mode():
        return torch.cat([network(part) for part in _bytes(stills(images)).split(32)])


@functools.cache
def _clip() -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPProcessor

    return CLIPModel.from_pretrained(CLIP, local_files_only=True).eval(), CLIPProcessor.from_pretrained(
        CLIP, local_files_only=True
    )


@functools.cache
def _image_reward() -> Any:
    return importlib.import_module("ImageReward").load("ImageReward-v1.0")


@functools.cache
def _inception() -> Callable[[Tensor], Tensor]:
    from torchmetrics.image.fid import NoTrainInceptionV3

    return NoTrainInceptionV3("inception-v3-compat", ["2048"])


def _bytes(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round().byte()


def _hub(name: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _lacking(metric: str, packages: dict[str, str], weights: Path | None = None, fetch: str = "") -> str:
    """Empty, or what the metric lacks and how to get it."""
    for name, install in packages.items():
        if importlib.util.find_spec(name) is None:
            return f"{metric} left out: needs the package {name}: {install}"
    if weights is not None and not weights.is_file():
        return f"{metric} left out: the weights {weights.name} are not here; where there is a network: {fetch}"
    return ""
