"""PixArt begins with DiT's weights, as its paper has it (arXiv 2310.00426, section 2.3, re-parameterization).

Patches, self-attention, feed-forward and output are copied. DiT has a network per block for its shifts, scales and
gates; PixArt has one for all and a table per block: fitted to DiT's without a class, over all steps. Cross-attention
starts silent, so that the new model paints what DiT paints without a class, as nearly as one network can say it.

    PYTHONPATH=benchmarks python -m twinning.inherit .train/pixart benchmarks/twins/dit
    PYTHONPATH=benchmarks python -m twinning.train pixart .train/pixart --end ...
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from twinning.parts import zero
from twinning.pixart import TWIN
from twinning.score import open_folder
from twinning.train import begin

# T steps of noise, L blocks, M modulations (6 x width), D width

NO_CLASS = 1000
RIDGE = 1e-3


@torch.no_grad()
def inherit(pixart: Any, dit: Any) -> None:
    """Overwrites what the two transformers have in common; they must be of one size."""
    pixart.pos_embed.load_state_dict(dit.pos_embed.state_dict())
    pixart.proj_out.load_state_dict(dit.proj_out_2.state_dict())
    for new, old in zip(pixart.transformer_blocks, dit.transformer_blocks, strict=True):
        new.attn1.load_state_dict(old.attn1.state_dict())
        new.ff.load_state_dict(old.ff.state_dict())
        zero(new.attn2.to_out[0])
    t_T = torch.arange(1000)
    said_TLM = torch.stack([_modulations(block, t_T) for block in dit.transformer_blocks], 1)
    tables_LM = said_TLM.mean(0)
    single, old = pixart.adaln_single, dit.transformer_blocks[0].norm1.emb
    single.emb.timestep_embedder.load_state_dict(old.timestep_embedder.state_dict())
    features_TD = single.emb.timestep_embedder(single.emb.time_proj(t_T))
    _fit(single.linear, functional.silu(features_TD), said_TLM.mean(1) - tables_LM.mean(0))
    for block, table_M in zip(pixart.transformer_blocks, tables_LM, strict=True):
        block.scale_shift_table.copy_(table_M.view(6, -1))
    shift_TD, scale_TD = dit.proj_out_1(functional.silu(_conditioning(dit.transformer_blocks[0], t_T))).chunk(2, 1)
    last_TD = torch.stack([(shift_TD - features_TD).mean(0), (scale_TD - features_TD).mean(0)])
    pixart.scale_shift_table.copy_(last_TD)


def _conditioning(block: Any, t_T: Tensor) -> Tensor:
    emb = block.norm1.emb
    return emb(t_T, torch.full_like(t_T, NO_CLASS), hidden_dtype=torch.float32)


def _modulations(block: Any, t_T: Tensor) -> Tensor:
    """(T, M) shifts, scales and gates of attention and feed-forward, without a class."""
    return block.norm1.linear(functional.silu(_conditioning(block, t_T)))


def _fit(linear: Any, x_TD: Tensor, y_TM: Tensor) -> None:
    """The linear layer that maps x to y best, by least squares with a ridge; the bias goes free."""
    x, y = x_TD - x_TD.mean(0), y_TM - y_TM.mean(0)
    gram = x.T @ x
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    linear.weight.copy_(torch.linalg.solve(gram, x.T @ y).T)
    linear.bias.copy_(y_TM.mean(0) - linear.weight @ x_TD.mean(0))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a run that is not begun yet")
    parser.add_argument("dit", type=Path, help="twin-dit's pipeline")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if (given.folder / "state.pt").exists():
        parser.error(f"{given.folder} holds a run that is begun")
    run = begin(TWIN, given.folder, given.seed)
    inherit(run.painter.transformer, open_folder(given.dit).transformer)
    run.average = {name: value.clone() for name, value in run.painter.state_dict().items()}
    run.save(given.folder)


if __name__ == "__main__":
    main()
