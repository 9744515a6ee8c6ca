"""Distils the embedded model's guided sampler into a LoRA that needs few steps and no guidance.

    PYTHONPATH=benchmarks nice -n 15 python -m testbed.distil adapters/.../tiny adapters/.../tiny-4step-lora

The teacher walks from noise to picture with guidance in STEPS x SUBSTEPS Euler steps; the student learns
to make each leg of SUBSTEPS steps in one, without guidance.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from ditstack_adapters.model.embedded.shapes import omit, training_scene
from testbed import flow
from testbed.networks import GRID
from testbed.words import LENGTH

# B batch, T image tokens, C channels of a token

STEPS, SUBSTEPS = 4, 6
RANK = 16
RATE = 2e-3
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
LAYERS = [*ATTENTION, "proj_mlp", "proj_out", "linear"]


class Walker:
    """The pipeline's transformer as a function of latents, noise level and encoded captions."""

    def __init__(self, pipe: FluxPipeline) -> None:
        self.pipe, self.transformer = pipe, pipe.transformer
        self.ids = FluxPipeline._prepare_latent_image_ids(1, GRID, GRID, torch.device("cpu"), torch.float32)

    def encode(self, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings, pooled embeddings and position ids, as the pipeline makes them."""
        pipe: Any = self.pipe
        with torch.no_grad():
            return pipe.encode_prompt(captions, None, max_sequence_length=LENGTH)

    def velocity(self, x_BTC: Tensor, sigma_B: Tensor, text: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The transformer's output."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.transformer(
                hidden_states=x_BTC,
                timestep=sigma_B,
                pooled_projections=text[1],
                encoder_hidden_states=text[0],
                txt_ids=text[2],
                img_ids=self.ids,
                return_dict=False,
            )[0].float()


def noise_levels(pipe: FluxPipeline, steps: int) -> Tensor:
    """The pipeline's own, from 1 to 0."""
    scheduler: Any = pipe.scheduler
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    return scheduler.sigmas.clone()


@torch.no_grad()
def teach(walker: Walker, captions: list[str], guidance: float) -> Tensor:
    """(STEPS + 1, B, T, C): the guided path from noise at the ends of the student's legs."""
    said, unsaid = walker.encode(captions), walker.encode([""] * len(captions))
    x = torch.randn(len(captions), GRID**2, walker.transformer.config["in_channels"])
    path = [x]
    sigmas = noise_levels(walker.pipe, STEPS * SUBSTEPS)
    for index in range(STEPS * SUBSTEPS):
        now = sigmas[index].expand(len(x))
        plain, towards = walker.velocity(x, now, unsaid), walker.velocity(x, now, said)
        x = x + (sigmas[index + 1] - sigmas[index]) * torch.lerp(plain, towards, guidance)
        if (index + 1) % SUBSTEPS == 0:
            path.append(x)
    return torch.stack(path)


def lessons(walker: Walker, guidance: float, minutes: float, size: int = 64) -> tuple[list[list[str]], list[Tensor]]:
    """Batches of captions and paths, as many as fit into the time."""
    rng = np.random.default_rng(2)
    captions, paths, began = [], [], time.monotonic()
    while time.monotonic() - began < 60 * minutes:
        scenes = [omit(training_scene(rng, 1), rng, flow.UNSAID) for _ in range(size)]
        captions.append([str(scene) for scene in scenes])
        paths.append(teach(walker, captions[-1], guidance))
    return captions, paths


def learn(walker: Walker, captions: list[list[str]], paths: list[Tensor], minutes: float) -> None:
    """Adapts the transformer in place."""
    transformer: Any = walker.transformer
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
    weights = [weight for weight in transformer.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    sigmas = noise_levels(walker.pipe, STEPS)
    texts = [walker.encode(part) for part in captions]
    began, step = time.monotonic(), 0
    while (left := 1 - (time.monotonic() - began) / 60 / minutes) > 0:
        index = step % len(paths)
        leg = torch.randint(STEPS, (paths[index].shape[1],))
        rows = torch.arange(len(leg))
        x, goal = paths[index][leg, rows], paths[index][leg + 1, rows]
        length = (sigmas[leg] - sigmas[leg + 1])[:, None, None]
        velocity = walker.velocity(x, sigmas[leg], texts[index])
        error = (length * STEPS * ((x - goal) / length - velocity).square()).mean()
        error.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / 20, 1, 2 * left)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 50 == 0:
            print(f"step {step} of {len(paths)} lessons, loss {error:.4f}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--teach-minutes", type=float, default=6.0)
    parser.add_argument("--learn-minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    flow.use_plain_attention()
    walker = Walker(FluxPipeline.from_pretrained(given.teacher))
    learn(walker, *lessons(walker, given.guidance, given.teach_minutes), given.learn_minutes)
    layers = get_peft_model_state_dict(walker.transformer)
    half: dict[str, Any] = {name: value.half() for name, value in layers.items()}
    FluxPipeline.save_lora_weights(given.folder, transformer_lora_layers=half)


if __name__ == "__main__":
    main()
