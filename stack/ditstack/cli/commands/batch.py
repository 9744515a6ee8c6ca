"""`ditstack batch`: a picture of every row of a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ditstack.cli.terminal import AsJson, Changes, Promise, RecipeName, err
from ditstack.errors import BadFile, Unfinished

if TYPE_CHECKING:
    from ditstack.batch.report import BatchReport
    from ditstack.batch.run import Job


Prompts = Annotated[
    str,
    typer.Argument(metavar="PROMPTS", help="A .txt, .csv, .jsonl or .parquet file or URL, a folder of pictures, or -."),
]
Folder = Annotated[
    str, typer.Option("--out", help="A folder or URL to write to; a run that was interrupted there resumes.")
]
Devices = Annotated[int, typer.Option(min=1, help="Processes per node, one per device.")]
Nodes = Annotated[int, typer.Option(min=1, help="Machines.")]
Strategy = Annotated[str | None, typer.Option(help="Lightning's strategy; ddp for several processes.")]
Precision = Annotated[str, typer.Option(help="Lightning's precision; the recipe's dtype by default.")]
Logger = Annotated[Literal["csv", "tensorboard"] | None, typer.Option(help="A logger of Lightning, in OUT/logs.")]
BatchSize = Annotated[str, typer.Option(help="Pictures per batch; auto tries what fits.")]
Ending = Annotated[Literal["png", "jpg", "webp", "mp4"], typer.Option(help="File format; mp4 for videos.")]
Shards = Annotated[int, typer.Option(min=0, help="Pictures per WebDataset tar; 0 writes single files.")]
Prompt = Annotated[str | None, typer.Option(help="The prompt of rows that have none.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse the whole file for one bad row.")]
LogFormat = Annotated[Literal["text", "json"], typer.Option(help="How progress is logged off a terminal.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume an interrupted run; refuse to begin a new one.")]


def batch(
    recipe: RecipeName,
    prompts: Prompts,
    folder: Folder,
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = None,
    precision: Precision = "32-true",
    logger: Logger = None,
    batch_size: BatchSize = "auto",
    format: Ending = "png",
    shards: Shards = 0,
    prompt: Prompt = None,
    strict: Strict = False,
    resume: Resume = False,
    promise: Promise = False,
    log_format: LogFormat = "text",
    changes: Changes = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Make a picture of every row of a file, on one device or many; killed at any moment, the same command resumes."""
    from ditstack.compat import require
    from ditstack.recipe.recipe import Recipe

    if batch_size != "auto" and not (batch_size.isdecimal() and int(batch_size)):
        raise BadFile(f"--batch-size: found {batch_size!r}; wanted a number from 1, or auto")
    size = "auto" if batch_size == "auto" else int(batch_size)
    read = Recipe.read(recipe, changes)
    require("lightning", "a batch", "lightning")
    from ditstack.batch.run import Job
    from ditstack.batch.spec import BatchSpec

    spec = BatchSpec(read, prompts, folder, size, format, shards, strict, resume, prompt, precision, promise)
    _run(Job(spec, devices, nodes, strategy, logger, log_format), as_json)


def _run(job: Job, as_json: bool) -> None:
    _hush()
    try:
        report = job.run(err)
    except Unfinished as error:
        if not job.exit_code:
            raise
        print(error, file=sys.stderr)
        sys.exit(job.exit_code)
    if report is not None:
        print(report.model_dump_json(indent=2) if as_json else _summary(report, job.spec.folder.name))
        sys.exit(job.exit_code or (1 if not report.pictures else 0))


def _hush() -> None:
    """Lightning announces its devices and processes; the bar says what matters."""
    import importlib.util
    import logging

    if importlib.util.find_spec("lightning") is None:
        return
    import lightning  # noqa: F401  sets its own levels when first imported

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _summary(report: BatchReport, folder: str) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.steps.items(), reverse=True)) or "none"
    lines = [
        f"{report.written} pictures written, {report.pictures} in the folder; "
        f"{report.pictures_per_second:.2f} per second; batches of {report.batch_size}; steps: {kinds}"
    ]
    if len(report.devices) > 1:
        each = (f"{one.rank}: {one.pictures} at {one.pictures_per_second:.2f}/s" for one in report.devices)
        lines.append("by process: " + ", ".join(each))
    if report.cost:
        stages = ", ".join(f"{name} {seconds:.3g}" for name, seconds in report.cost.stage_seconds_per_picture.items())
        each = f"{report.cost.device_seconds_per_picture:.3g} device-seconds per picture ({stages})"
        lines.append(f"cost: {report.cost.pictures_per_hour:,.0f} pictures per hour, {each}")
    if (kept := report.promise) is not None:
        lines.append(f"promise: {kept.pictures} pictures certified: {kept.certificate}")
        lines += [f"promise: {count} pictures {why}" for why, count in kept.in_full.items()]
        lines += [f"promise: {kept.drift}"] * bool(kept.drift)
    if report.failures:
        lines.append(f"{report.failures} rows failed: {folder}/errors.jsonl")
    if not report.complete:
        lines.append("stopped; run the same command again to resume")
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join([*lines, f"pictures, manifest.jsonl, report.json and batch.html: {folder}/"])
