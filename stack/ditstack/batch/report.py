"""Batch report: what a run of a batch made, how fast, and on what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from ditstack.calibration.certificate import Certificate
from ditstack.calibration.promised import CERTIFIED
from ditstack.recipe.capabilities import describe_machine
from ditstack.recipe.origin import origins
from ditstack.recipe.recipe import Recipe
from ditstack.report import peak_memory, versions

STAGES = ("encode", "denoise", "decode")


class Device(BaseModel):
    """What one process made."""

    rank: int
    pictures: int
    failures: int
    pictures_per_second: float


class Cost(BaseModel):
    """What the pictures of a run cost. Device-seconds are GPU-seconds where the devices are GPUs."""

    pictures_per_hour: float
    device_seconds_per_picture: float
    """Of every process from its first batch to its last, waiting included."""
    stage_seconds_per_picture: dict[str, float]
    """The same of encode, denoise and decode."""


class KeptPromise(BaseModel):
    """What a certificate came to."""

    certificate: str
    digest: str
    pictures: int
    """At the certified setting, of which the promised share keeps it."""
    in_full: dict[str, int]
    """Pictures that it does not cover, all of whose steps ran, by the reason."""
    drift: str
    """What tells that the prompts may be of another kind than calibration's; empty where nothing does."""


class BatchReport(BaseModel):
    """One run of a batch; a run that goes on with another reports its own work and the whole's state."""

    recipe: str
    resolved: dict[str, Any]
    versions: dict[str, str]
    methods: dict[str, str] = {}
    """Of each stage, the distribution and version that its method is of."""
    machine: str
    weights: str = ""
    seed: int
    complete: bool
    """Every row has its pictures, or its line in errors.jsonl."""
    pictures: int
    """Finished in the folder."""
    written: int
    """By this run."""
    failures: int
    batch_size: int
    pictures_per_second: float
    seconds: dict[str, float]
    """Of all processes together: encode, denoise, decode; write runs beside them, waited is what it held up."""
    steps: dict[str, int]
    macs: int
    peak_memory: int
    devices: list[Device]
    promise: KeptPromise | None = None
    """Of all pictures in the folder, where it was made under a certificate."""
    cost: Cost | None = None
    """None where this run made nothing."""
    notes: list[str] = []


def summarise(recipe: Recipe, totals: list[dict[str, Any]], before: int, size: int) -> BatchReport:
    """The totals of all processes as one report."""
    seconds: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    for one in totals:
        seconds.update({**one.get("seconds", {}), "write": one["write"], "waited": one["waited"]})
        steps.update(one.get("steps", {}))
    written, elapsed = sum(one["written"] for one in totals), max(one["elapsed"] for one in totals)
    devices = [
        Device(
            rank=one["rank"], pictures=one["written"], failures=one["failed"],
            pictures_per_second=one["written"] / one["elapsed"],
        )
        for one in totals
    ]  # fmt: skip
    return BatchReport(
        recipe=recipe.name,
        resolved=recipe.resolved(),
        versions=versions(),
        methods=origins(recipe),
        machine=describe_machine(),
        seed=recipe.seed,
        complete=not any(one["stopped"] for one in totals),
        pictures=before + written,
        written=written,
        failures=sum(one["failed"] for one in totals),
        batch_size=size,
        pictures_per_second=written / elapsed,
        seconds={**seconds, "elapsed": elapsed},
        steps=dict(steps),
        macs=sum(one.get("macs", 0) for one in totals),
        peak_memory=peak_memory(),
        devices=devices,
        cost=_cost(written, elapsed, totals, seconds) if written else None,
    )


def kept_promise(certificate: Certificate, entries: Iterable[Mapping[str, Any]]) -> KeptPromise:
    """Of the lines of a manifest; a picture may have several."""
    decisions: Counter[str] = Counter()
    scores: dict[str, list[float]] = {}
    for one in {entry["number"]: entry["promise"] for entry in entries}.values():
        decisions[one["decision"]] += 1
        for name, value in one["scores"].items() if one["decision"] == CERTIFIED else ():
            scores.setdefault(name, []).append(value)
    certified = decisions.pop(CERTIFIED, 0)
    return KeptPromise(
        certificate=str(certificate),
        digest=certificate.digest,
        pictures=certified,
        in_full=dict(decisions),
        drift=certificate.drift(scores),
    )


def _cost(written: int, elapsed: float, totals: list[dict[str, Any]], seconds: Counter[str]) -> Cost:
    """Of all devices together; a picture that was made again with its batch counts as cost, not as a picture."""
    return Cost(
        pictures_per_hour=3600 * written / elapsed,
        device_seconds_per_picture=sum(one["elapsed"] for one in totals) / written,
        stage_seconds_per_picture={name: seconds[name] / written for name in STAGES if name in seconds},
    )
