"""The command line. It reads, checks and prints; the work is done elsewhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from typer._click.exceptions import ClickException

from ditstack.batch_cli import batch
from ditstack.errors import BadFile, DitstackError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A name on the shelf (see `ditstack recipes`) or a path.")
]
Changes = Annotated[list[str], typer.Option("--set", metavar="PATH=VALUE", help="Override a field: cache.interval=7.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")]


def main() -> None:
    """Run, and turn what a user can mend into one message and exit code 2."""
    from ditstack.quiet import hush

    hush()
    try:
        sys.exit(app(standalone_mode=False))  # typer turns Ctrl-C into the exit code 130
    except DitstackError as error:
        err.print(escape(str(error)), style="red", soft_wrap=True)
        sys.exit(2)
    except ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the shelf: every recipe, its stages, and whether it can run here."""
    from ditstack.layers import shelf_names
    from ditstack.show import shelf_rows, shelf_table

    rows = shelf_rows(shelf_names())
    out.print_json(json.dumps(rows)) if as_json else out.print(shelf_table(rows))


@app.command()
def show(recipe: RecipeName, changes: Changes = [], resolved: bool = False) -> None:  # noqa: B006
    """Show a recipe's plan, with the facts before and after each stage. Loads no weights."""
    from ditstack.plan import plan
    from ditstack.recipe import Recipe
    from ditstack.show import plan_table

    read = Recipe.read(recipe, changes)
    if resolved:
        print(read.to_yaml(), end="")
        return
    steps = plan(read)
    out.print(plan_table(read, steps))
    for reason in [reason for step in steps for reason in step.reasons]:
        out.print(f"cannot run here: {escape(reason)}", style="red", soft_wrap=True)


@app.command()
def run(
    recipe: RecipeName,
    prompt: Annotated[list[str], typer.Option(help="A prompt; may be given several times.")] = [],  # noqa: B006
    prompts: Annotated[Path | None, typer.Option(help="A text file with one prompt a line.")] = None,
    negative_prompt: Annotated[str | None, typer.Option()] = None,
    steps: Annotated[int | None, typer.Option()] = None,
    guidance: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to write; a new folder under out/ by default.")
    ] = None,
    changes: Changes = [],  # noqa: B006
    compare: Annotated[bool, typer.Option(help="Run the unaccelerated twin too, and measure the difference.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make pictures with a recipe."""
    from ditstack.files import free_folder
    from ditstack.recipe import Recipe
    from ditstack.run import Job

    given = {"sampler.steps": steps, "sampler.guidance": guidance, "seed": seed, "sampler.size": size}
    changes = [*changes, *(f"{path}={value}" for path, value in given.items() if value is not None)]
    read = Recipe.read(recipe, changes)
    wanted = [*prompt, *(read_prompts(prompts) if prompts else [])] or list(read.prompts)
    if not wanted:
        raise BadFile(f"recipe {read.name} names no prompts; give --prompt or --prompts FILE")
    target = folder or free_folder(Path("out") / read.name)
    job = Job(read, wanted, target, negative_prompt, compare, overwrite)
    report = job.run(err)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        from ditstack.show import run_summary

        out.print(run_summary(report, target), soft_wrap=True)


@app.command()
def calibrate(
    recipe: RecipeName,
    prompts: Annotated[Path | None, typer.Option(help="A text file with one prompt a line.")] = None,
    samples: Annotated[int, typer.Option(min=2, help="How many prompts to use at most.")] = 16,
    factors: Annotated[Path | None, typer.Option("--out", help="The file to write.")] = None,
    changes: Changes = [],  # noqa: B006
) -> None:
    """Fit a recipe's factors to the weights and stages that run, and store them."""
    from ditstack.calibrate import calibrate as fit
    from ditstack.recipe import Recipe

    read = Recipe.read(recipe, changes)
    wanted = (read_prompts(prompts) if prompts else list(read.calibration))[:samples]
    written = fit(read, wanted, factors, lambda line: out.print(escape(line), soft_wrap=True))
    out.print(f"wrote {written}", soft_wrap=True)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has, and how to install what it lacks."""
    from ditstack.show import doctor_rows, doctor_table

    rows = doctor_rows()
    out.print_json(json.dumps(rows)) if as_json else out.print(doctor_table(rows))


app.command()(batch)


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines are passed over.

    Raises:
        BadFile: it cannot be read, is not UTF-8 text, or holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadFile(f"the prompts file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadFile(f"the prompts file {path} is not UTF-8 text (byte {error.start})") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise BadFile(f"the prompts file {path} holds no prompt; write one a line")
    return found
