"""A small matrix made by hand, with a text in it that must be escaped."""

import math
from pathlib import Path
from typing import Any

from PIL import Image

from ditstack.matrix.schema import Cell, Estimate, FewSteps, Matrix, Peer, Unit

EVIL = "<script>alert('&')</script>"
RECIPE = f'model: {{method: tiny}}\nprompts: ["{EVIL}"]\n'


def estimate(mean: float) -> Estimate:
    return Estimate(mean=mean, low=mean * 0.9, high=mean * 1.1)


def cell(folder: Path, quantize: str, cache: str, speedup: float, error: float, **given: Any) -> Cell:
    """A measured cell whose one picture is as gray as its error is large."""
    name = f"{quantize}-{cache}"
    Image.new("RGB", (16, 16), (round(100 + 500 * error),) * 3).save(folder / f"{name}.png")
    psnr = -20 * math.log10(error) if error else math.inf
    fidelity = {"psnr": estimate(psnr), "relative_l2": estimate(error)}
    words = {"quantize": quantize, "cache": cache}
    return Cell(
        name=name,
        words=words,
        status="ok",
        recipe=RECIPE,
        speedup=speedup,
        speedup_range=(speedup * 0.95, speedup * 1.05),
        seconds=7 / speedup,
        seconds_range=(6.9 / speedup, 7.1 / speedup),
        weight_bytes=4_000_000 if quantize == "none" else 1_000_000,
        to_baseline=fidelity,
        pictures=[f"{name}.png"],
    ).model_copy(update=given)


def matrix(folder: Path) -> Matrix:
    both = {"interaction": estimate(0.01), "parts": ["int8-none", "none-reuse"], "status": "degraded"}
    cells = [
        cell(folder, "none", "none", 1.0, 0.0),
        cell(folder, "none", "idle", 0.8, 0.0),
        cell(folder, "none", "reuse", 3.5, 0.05),
        cell(folder, "int8", "none", 0.9, 0.01),
        cell(folder, "int8", "reuse", 3.0, 0.06, **both),
        Cell(name="nf4-reuse", words={"quantize": "nf4", "cache": "reuse"}, status="refused", reasons=[f"No. {EVIL}"]),
    ]
    return Matrix(
        model="tiny",
        machine="a machine",
        versions={"torch": "2"},
        prompts=["one", EVIL],
        seed=0,
        gate={"psnr_min": 30.0},
        axes={"quantize": ["none", "int8", "nf4"], "cache": ["none", "idle", "reuse"]},
        units=[
            Unit(name="psnr", title="PSNR", unit="dB", higher_is_better=True),
            Unit(name="relative_l2", title="relative L2", higher_is_better=False),
        ],
        pictured=[EVIL],
        interaction_model="errors add in quadrature",
        cells=cells,
        few_steps=[
            FewSteps(
                distill="4step",
                steps=4,
                cache="reuse",
                full_steps=3,
                macs_ratio=0.75,
                psnr=estimate(30),
                fewer_psnr=estimate(31),
                fewer_macs_ratio=0.75,
                gain=Estimate(mean=-1, low=-2, high=0),
                wins=False,
            )
        ],
        peers=[Peer(name="a peer", kind="peer", full_steps=7, steps=28, psnr=estimate(33), note=EVIL)],
    )
