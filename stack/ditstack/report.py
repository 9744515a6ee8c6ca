"""Report: one schema for a run, a matrix cell and a benchmark row."""

from __future__ import annotations

import html
import importlib.metadata
import os
import platform
import re
import statistics
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict

PACKAGES = (
    "ditstack",
    "torch",
    "diffusers",
    "transformers",
    "torchao",
    "peft",
    "bitsandbytes",
    "sageattention",
    "lightning",
    "triton",
)

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux tells a process its peak memory, and starts it afresh."""

FILED = ConfigDict(extra="forbid", ser_json_inf_nan="strings")
"""Of what is written to a JSON file and read back; infinity is a word there."""


class Measure(BaseModel):
    """One quality figure: the mean, and each picture's own."""

    mean: float
    each: list[float]

    @classmethod
    def of(cls, each: list[float]) -> Measure:
        return cls(mean=statistics.fmean(each), each=each)


class Estimate(BaseModel):
    """A mean over prompts with its 95 % bootstrap interval; infinite where pictures are equal."""

    model_config = FILED

    mean: float
    low: float
    high: float


class Unit(BaseModel):
    """How a measure is read."""

    model_config = FILED

    name: str
    """The key in a cell's measures, such as "psnr"."""
    title: str
    """For people: "PSNR"."""
    unit: str = ""
    higher_is_better: bool


class Comparison(BaseModel):
    """The stack against its unaccelerated baseline: same prompts, seeds and steps, in the same process."""

    plain_seconds: dict[str, float]
    speedup: float
    """Of denoising: the median of interleaved pairs, or of one pass each where there was no room for both."""
    speedup_range: tuple[float, float] | None = None
    """Its 95 % interval, where there were pairs."""
    psnr: Measure
    ssim: Measure
    relative_l2: Measure
    """Of the final latents."""


class Report(BaseModel):
    """What ran, on what, how long it took, and what it cost."""

    model_config = FILED

    recipe: str
    resolved: dict[str, Any]
    versions: dict[str, str]
    methods: dict[str, str] = {}
    """Of each stage, the distribution and version that its method is of."""
    machine: str
    device: str
    weights: str
    """The fingerprint of the transformer's weights as they ran."""
    seed: int
    seeds: list[int] = []
    prompts: list[str] = []
    seconds: dict[str, float]
    peak_memory: int
    """Bytes: of the GPU, or of the process where there is none."""
    steps: dict[str, int]
    macs: int
    macs_ratio: float
    """Multiply-accumulates as a share of running every step in full."""
    each: list[dict[str, Any]] = []
    """Of each picture its steps and MACs; under a promise what was decided of it, and its scores."""
    compiled: int | None = None
    """Pieces of code that were compiled during the generation: 0 once it is warm, None where nothing is compiled."""
    notes: list[str] = []
    compare: Comparison | None = None

    def __repr__(self) -> str:
        return f"Report({self.recipe}: {'; '.join(f'{name} {value}' for name, value in self._told())})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = [*self._told(), ("on", self.machine), *(("note", note) for note in self.notes)]
        cells = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows)
        return f"<table><caption>{html.escape(self.recipe)}</caption>{cells}</table>"

    def _told(self) -> list[tuple[str, str]]:
        """What a reader wants first, in words."""
        told = [("pictures", str(len(self.prompts)))] if self.prompts else []
        told += [("steps", " + ".join(f"{count} {kind}" for kind, count in self.steps.items()))]
        told += [("MACs", f"{self.macs_ratio:.0%} of all"), ("denoise", f"{self.seconds.get('denoise', 0.0):.2f} s")]
        if (found := self.compare) is not None:
            told += [("speed-up", f"{found.speedup:.2f}x"), ("PSNR", _mean_and_least(found.psnr, "dB"))]
            told += [("SSIM", f"{found.ssim.mean:.4f}")]
        return told


def _mean_and_least(found: Measure, unit: str) -> str:
    return f"{found.mean:.1f} {unit} (worst {min(found.each):.1f})"


def versions() -> dict[str, str]:
    """The versions of what matters, as installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_memory() -> int:
    """Bytes at the highest point since the last reset: of the GPU, or of the process where there is none."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text()) if STATUS.is_file() else None
    if found:
        return 1024 * int(found[1])
    told = psutil.Process().memory_info()
    return getattr(told, "peak_wset", told.rss)  # Windows tells the peak; elsewhere it is what is held now


def reset_peak_memory() -> None:
    """Count the highest point from here on, where the system can: CUDA and Linux do."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif RESET.exists() and os.access(RESET, os.W_OK):
        RESET.write_text("5")
