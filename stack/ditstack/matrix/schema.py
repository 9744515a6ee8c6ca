"""Matrix: every combination of methods, what it brought and what it cost. The schema of matrix.json, nothing else.

Words are what a recipe says at a stage ("int8", "sparse", "none"); a cell's `name` joins them in the order of stages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel

from ditstack.recipe.sections import Promise
from ditstack.report import FILED, Estimate, Unit

Status = Literal["ok", "degraded", "idle", "refused", "failed", "control"]
"""ok: it keeps the gate, and is surely above the control of as many multiply-accumulates, where it saves any. idle: a
stage of it did nothing. control: no combination, but the plain model in fewer evaluations by the best solver."""
STATUSES: tuple[Status, ...] = get_args(Status)
PLAIN = "none"
"""The word for a stage that is left out."""


class _Row(BaseModel):
    model_config = FILED


class Cell(_Row):
    """One combination. What was not measured (refused, failed) is None or empty."""

    name: str
    words: dict[str, str]
    """Stage to word, every varied stage in the one order; "none" where it is left out."""
    status: Status
    reasons: list[str] = []
    """Why it is refused, failed, degraded or idle: whole sentences."""
    contradiction: str = ""
    """Where what is declared and what was measured disagree: the cell is red. Empty is good."""
    recipe: str = ""
    """The resolved recipe as YAML, to copy and run."""
    steps: dict[str, int] = {}
    """Steps by kind: {"full": 7, "forecast": 21}."""
    seconds: float | None = None
    """Of denoising one picture: the median of several made one at a time."""
    seconds_range: tuple[float, float] | None = None
    """Its 95 % interval; None in older files, whose seconds are a picture's share of a batch."""
    speedup: float | None = None
    """Of denoising, against the plain model with all its steps: the median of interleaved pairs."""
    speedup_range: tuple[float, float] | None = None
    """Its 95 % interval."""
    peak_memory: int | None = None
    """Bytes of the GPU's memory; None without a GPU, where only the process's high-water mark is known."""
    weight_bytes: int | None = None
    """Of the transformers' weights as they run."""
    macs_ratio: float | None = None
    """Multiply-accumulates as a share of the unaccelerated baseline's."""
    to_baseline: dict[str, Estimate] = {}
    """Fidelity to the unaccelerated baseline: same model, LoRA, sampler and seeds, nothing else."""
    plain_macs_ratio: float | None = None
    """Multiply-accumulates as a share of those of the plain model with all its steps, which has no LoRA. Where this is
    None (older files), a LoRA's speed-up is against its own baseline."""
    to_plain: dict[str, Estimate] = {}
    """Fidelity to the plain model with all its steps; empty where that is the baseline."""
    to_unquantized: dict[str, Estimate] = {}
    """Fidelity to the same stack without its quantize stage; empty where there is none."""
    own: dict[str, Estimate] = {}
    """Measures of the pictures themselves, such as caption agreement."""
    interaction: Estimate | None = None
    """Relative L2 error beyond what the parts alone predict in quadrature; None for plain cells and single parts."""
    parts: list[str] = []
    """Names of the cells whose errors predict this one's: each accelerating stage alone, on the same LoRA."""
    control: str = ""
    """Name of the control of as many multiply-accumulates; empty where it saves none."""
    above_control: Estimate | None = None
    """Paired difference of PSNR to that control."""
    psnr_each: list[float] = []
    """PSNR of every prompt to the baseline."""
    errors: list[float] = []
    """Relative L2 of every prompt's final latent to the baseline: what interactions are made of."""
    pictures: list[str] = []
    """Files below the matrix's folder, one for each of `Matrix.pictured`."""


class FewSteps(_Row):
    """A cache on a schedule of few steps beside the same schedule one step shorter."""

    distill: str
    steps: int
    cache: str
    full_steps: int
    macs_ratio: float
    psnr: Estimate
    fewer_psnr: Estimate
    """Of the uncached control with one step fewer."""
    fewer_macs_ratio: float
    gain: Estimate
    """Paired difference of PSNR: cache minus control."""
    wins: bool
    """The gain's interval lies above zero, and the cache costs no more multiply-accumulates than the control."""
    equal_steps: int | None = None
    """The least uncached steps that cost at least as much as the cache, at most one fewer than the schedule's."""
    equal_psnr: Estimate | None = None
    equal_gain: Estimate | None = None
    """Paired difference of PSNR to those."""


class Peer(_Row):
    """One row of the peers' table."""

    name: str
    kind: Literal["ours", "peer", "control", "not run"]
    full_steps: int
    steps: int
    psnr: Estimate | None = None
    ssim: Estimate | None = None
    gain_psnr: Estimate | None = None
    """Paired difference: our default cache minus this row, at the same number of full steps."""
    gain_ssim: Estimate | None = None
    seconds: float | None = None
    macs_ratio: float | None = None
    note: str = ""


class Matrix(_Row):
    """What `ditstack matrix` leaves in matrix.json."""

    model: str
    machine: str
    versions: dict[str, str]
    methods: dict[str, str] = {}
    """Of each stage and method that occurs, as "cache svdcache", its distribution and version."""
    prompts: list[str]
    seed: int
    gate: dict[str, float]
    """What a cell must keep to be ok rather than degraded."""
    promise: Promise | None = None
    """What the base recipe promises of every picture, if it does."""
    axes: dict[str, list[str]]
    """Stage to its words, in the one order of stages."""
    units: list[Unit]
    """Every measure that occurs, in the order to show them."""
    left_out: list[str] = []
    """Measures that could not be taken here: one sentence each, with how to get them."""
    pictured: list[str] = []
    """The prompts whose pictures are kept."""
    interaction_model: str
    """How the prediction is made, in a sentence."""
    cells: list[Cell]
    few_steps: list[FewSteps] = []
    peers: list[Peer] = []


def read(path: Path) -> Matrix:
    """A matrix.json."""
    return Matrix.model_validate_json(path.read_text(encoding="utf-8"))
