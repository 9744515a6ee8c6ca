"""PixArt begins with what DiT has learned."""

from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

from twinning.inherit import NO_CLASS, inherit

SIZE: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "sample_size": 8}


@torch.inference_mode()
def test_pixart_paints_nearly_what_dit_paints_without_a_class() -> None:
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(**SIZE, out_channels=4, num_layers=2).eval()
    pixart = PixArtTransformer2DModel(
        **SIZE, out_channels=4, num_layers=2, cross_attention_dim=32, caption_channels=8
    ).eval()
    x, text = torch.randn(3, 4, 8, 8), torch.randn(3, 5, 8)

    def apart(t: int) -> float:
        steps = torch.full((3,), t)
        wanted = dit(x, steps, torch.full((3,), NO_CLASS), return_dict=False)[0]
        painted = pixart(x, encoder_hidden_states=text, timestep=steps, return_dict=False)[0]
        return float((painted - wanted).norm() / wanted.norm())

    before = [apart(t) for t in (20, 500, 980)]
    inherit(pixart, dit)
    for t, was in zip((20, 500, 980), before, strict=True):
        assert apart(t) < was / 3
