"""Writes the averaged weights as a FluxPipeline folder.

PYTHONPATH=benchmarks python -m testbed.export .train/run .train/autoencoder adapters/.../embedded/tiny
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from testbed.networks import Painter, autoencoder
from testbed.words import clip_tokenizer, t5_tokenizer


def pipeline(run: Path, autoencoder_folder: Path) -> FluxPipeline:
    """The pipeline of a checkpoint, with transformer and autoencoder in half precision.

    The text encoders stay in fp32, since transformers, unlike diffusers, loads weights in the type that they
    have on disk.
    """
    painter = Painter()
    state = torch.load(run / "state.pt", weights_only=True)
    painter.load_state_dict(state["average"])
    decoder: Any = autoencoder()
    transformer: Any = painter.transformer
    decoder.load_state_dict(torch.load(autoencoder_folder / "weights.pt", weights_only=True))
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=decoder.half(),
        text_encoder=painter.clip,
        tokenizer=clip_tokenizer(),
        text_encoder_2=painter.t5,
        tokenizer_2=t5_tokenizer(),
        transformer=transformer.to(torch.bfloat16),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    pipeline(given.run, given.autoencoder).save_pretrained(given.folder)


if __name__ == "__main__":
    main()
