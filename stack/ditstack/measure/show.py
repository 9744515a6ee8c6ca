"""Show: what the command line prints."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ditstack.errors import DitstackError
from ditstack.measure.measured import MeasuredSeconds, measured_seconds
from ditstack.recipe.capabilities import Capability, describe_machine, machine
from ditstack.recipe.layers import about
from ditstack.recipe.manual import Manual
from ditstack.recipe.memory.planned import gb
from ditstack.recipe.memory.room import Fit, fit
from ditstack.recipe.plan import Step, plan
from ditstack.recipe.recipe import Recipe
from ditstack.report import Report, versions

BACKENDS = {
    "torchao": "pip install 'torchao>=0.18'",
    "bitsandbytes": "pip install 'ditstack[bitsandbytes]'",
    "sageattention": "pip install 'ditstack[sage]'",
    "lightning": "pip install 'ditstack[lightning]'",
    "torchmetrics": "pip install 'ditstack[quality]'",
    "jinja2": "pip install 'ditstack[report]'",
    "triton": "comes with a CUDA build of torch",
}


def shelf_rows(names: list[str]) -> list[dict[str, Any]]:
    """Each recipe: what it is for, its stages, what they need of a machine, and why it cannot run here if so."""
    known = measured_seconds()
    return [_shelf_row(name, known.get(name)) for name in names]


def _shelf_row(name: str, known: MeasuredSeconds | None) -> dict[str, Any]:
    row: dict[str, Any] = {"recipe": name, "about": about(name), "stages": {}, "needs": [], "cannot": []}
    row["seconds"] = None if known is None else known.model_dump()
    try:
        recipe = Recipe.read(name)
        steps, memory = plan(recipe), fit(recipe)
    except DitstackError as error:
        return {**row, "memory": None, "cannot": [str(error)]}
    row["memory"] = None if memory is None else memory_row(memory)
    row["stages"] = {step.stage: step.method for step in steps}
    row["needs"] = list(dict.fromkeys(word for step in steps for word in _needs(step)))
    row["cannot"] = [reason for step in steps for reason in step.reasons]
    return row


def _needs(step: Step) -> list[str]:
    """What a stage needs of the machine, in single words: capabilities, and packages that an extra brings."""
    words = {one: name.lower() for name, one in vars(Capability).items() if isinstance(one, Capability)}
    of_machine = [words.get(one, one.sentence) for one in _ordered(step.adapter.needs) if one.probe is not None]
    return [*of_machine, *(step.adapter.packages if step.adapter.extra else ())]


def memory_row(found: Fit) -> dict[str, Any]:
    """What a recipe needs of its device's memory and whether it fits, as plain data."""
    numbers = {key: round(one) for key, one in asdict(found.plan).items() if isinstance(one, float)}
    parts = {name: round(size) for name, size in found.plan.parts.items()}
    said = {"device": found.plan.device, "offload": found.plan.offload, "sizes": found.plan.told}
    return {**said, **numbers, "parts": parts, "room": found.room, "fits": found.fits, "advice": found.advice}


def memory_lines(found: Fit | None) -> list[str]:
    """The same for people."""
    if found is None:
        return ["memory: not known, since the model is not on this computer and its family states no sizes"]
    return [f"memory: {found.plan}", f"memory: {found}"]


def shelf_lines(rows: list[dict[str, Any]]) -> list[str]:
    """One line for each recipe: its name, whether it runs here, its memory, what else it needs, what it is for."""
    named = max((len(row["recipe"]) for row in rows), default=0)
    needs = {row["recipe"]: ", ".join(row["needs"]) or "-" for row in rows}
    widest = max(map(len, needs.values()), default=0)
    return [
        f"{row['recipe']:{named}}  {_runs(row)}  {_memory(row):>8}  {needs[row['recipe']]:{widest}}  {row['about']}"
        + _seconds(row)
        for row in rows
    ]


def _seconds(row: dict[str, Any]) -> str:
    return "" if row["seconds"] is None else f" ({MeasuredSeconds(**row['seconds'])})"


def _runs(row: dict[str, Any]) -> str:
    fits = row["memory"] is None or row["memory"]["fits"]
    return "yes" if fits and not row["cannot"] else "no "


def _memory(row: dict[str, Any]) -> str:
    return "?" if row["memory"] is None else gb(row["memory"]["needs"])


def manual_text(manual: Manual) -> str:
    """A method's manual, as plain text: its source, then each field with what it takes, its default and its meaning."""
    lines = [f"{manual.stage}/{manual.method}", "", manual.about, "", manual.summary, ""]
    if not manual.fields:
        lines.append("It has no fields.")
    for field in manual.fields:
        default = f"; default {field.default}" if field.default else "; must be given"
        lines += [f"  {field.name}: {field.allowed}{default}", f"      {field.meaning}"]
    return "\n".join([*lines, "", f"In a recipe: {manual.stage}: {{method: {manual.method}, ...}}"])


def manual_json(manual: Manual) -> str:
    return json.dumps(asdict(manual), indent=2)


def plan_json(recipe: Recipe, steps: list[Step]) -> str:
    """The resolved recipe, and why it cannot run here, if it cannot."""
    cannot = [reason for step in steps for reason in step.reasons]
    memory = None if (found := fit(recipe)) is None else memory_row(found)
    said = {"recipe": recipe.name, "cannot": cannot, "memory": memory, "resolved": recipe.resolved()}
    return json.dumps(said, indent=2)


def plan_table(recipe: Recipe, steps: list[Step]) -> Table:
    table = Table(
        "stage", "method", "fields that differ from the default", "facts taken and given", title=Text(recipe.name)
    )
    for step in steps:
        changed = step.adapter.model_dump(mode="json", exclude_defaults=True)
        fields = ", ".join(f"{key}: {value}" for key, value in changed.items())
        gone = [f"- {fact.sentence}" for fact in _ordered(step.before - step.after)]
        new = [f"+ {fact.sentence}" for fact in _ordered(step.after - step.before)]
        table.add_row(step.stage, step.method, fields, "\n".join(gone + new))
    sampler = recipe.sampler.model_dump(exclude_none=True, exclude_defaults=False)
    table.caption = ", ".join(f"{key} {value}" for key, value in sampler.items() if value != {})
    return table


def _ordered(facts: frozenset[Capability]) -> list[Capability]:
    return sorted(facts, key=lambda fact: fact.sentence)


def run_summary(report: Report, folder: Path) -> str:
    """The end of a run, in a few lines."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.steps.items(), reverse=True))
    lines = [
        f"{len(report.prompts)} pictures in {report.seconds['denoise']:.2f} s of denoising; steps: {kinds}; "
        f"{report.macs_ratio:.2f} of the multiplications",
    ]
    if (found := report.compare) is not None:
        between = "" if (ends := found.speedup_range) is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
        lines.append(
            f"speed-up {found.speedup:.2f}x{between} against the plain baseline; PSNR {found.psnr.mean:.1f} dB, "
            f"SSIM {found.ssim.mean:.4f}, relative L2 of the latents {found.relative_l2.mean:.4f}"
        )
        lines.append(f"side by side: {folder / 'grid.png'}")
    decided = Counter(one["decision"] for one in report.each if one["decision"])
    lines += [f"{count} pictures {decision}" for decision, count in decided.items()]
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join([*lines, f"pictures, recipe.yaml and report.json: {folder}/"])


def doctor_rows(recipe: Recipe | None = None) -> dict[str, Any]:
    """What this machine has, and what a recipe needs of it."""
    facts = machine()
    missing = {name: hint for name, hint in BACKENDS.items() if importlib.util.find_spec(name) is None}
    more: dict[str, Any] = {} if recipe is None else {"recipe": json.loads(plan_json(recipe, plan(recipe)))}
    return {
        **more,
        "machine": describe_machine(),
        "facts": {fact.sentence: fact in facts for fact in (Capability.CUDA, Capability.SM80, Capability.SM89)},
        "versions": versions(),
        "missing": missing,
    }


def doctor_table(rows: dict[str, Any]) -> Table:
    table = Table("what", "found", title=rows["machine"])
    for fact, true in rows["facts"].items():
        table.add_row(fact, "yes" if true else "no")
    for name, version in rows["versions"].items():
        table.add_row(name, version)
    for name, hint in rows["missing"].items():
        table.add_row(name, f"missing: {hint}")
    return table
