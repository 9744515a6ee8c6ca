"""`ditstack tune`: the fastest stack that keeps a gate on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditstack.cli.terminal import Changes, Overwrite, PromptsOrCount, chosen_prompts, out, size_of, telling
from ditstack.errors import BadFile
from ditstack.files import expand
from ditstack.marks import is_signed, require_own_file, signed

if TYPE_CHECKING:
    from ditstack.recipe.recipe import Recipe


def tune(
    model: Annotated[str, typer.Option(help="The recipe to accelerate: a name on the shelf or a path.")],
    psnr_min: Annotated[float | None, typer.Option(help="Mean PSNR in dB to the plain model, by its low end.")] = None,
    psnr_p5_min: Annotated[float | None, typer.Option(help="The 5th percentile, which sees broken pictures.")] = None,
    ssim_min: Annotated[float | None, typer.Option()] = None,
    agreement_drop_max: Annotated[float | None, typer.Option()] = None,
    speedup_min: Annotated[float | None, typer.Option()] = None,
    gates: Annotated[
        list[str],
        typer.Option("--gate", metavar="NAME=LIMIT", help="Any other of `quality`: lpips_max=0.1."),
    ] = [],  # noqa: B006
    max_memory: Annotated[str, typer.Option(metavar="SIZE", help="Such as 16GB.")] = "",
    methods: Annotated[
        list[str], typer.Option(metavar="STAGE=WORD,WORD", help="What to try at a stage; else all that can run here.")
    ] = [],  # noqa: B006
    prompts: PromptsOrCount = "16",
    changes: Changes = [],  # noqa: B006
    path: Annotated[
        Path | None, typer.Option("--out", help="The recipe to write; MODEL-tuned.yaml by default.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Find the fastest stack that keeps a gate here, say why, and write its recipe; exit code 3 if there is none.

    A gate is judged by the worse end of its 95 % interval, which more prompts narrow. Killed, the same command resumes.
    """
    from ditstack.folders import own_file
    from ditstack.recipe import axes
    from ditstack.recipe.recipe import Recipe

    limits = {"psnr_min": psnr_min, "psnr_p5_min": psnr_p5_min, "ssim_min": ssim_min}
    limits |= {"agreement_drop_max": agreement_drop_max, "speedup_min": speedup_min}
    named = [f"{name}={limit}" for name, limit in limits.items() if limit is not None]
    base = Recipe.read(model, [*changes, *(f"quality.{one}" for one in (*named, *gates))])
    if not base.quality.limits():
        raise BadFile("tune needs a gate; give --psnr-p5-min 30, or a recipe with one")
    target, ours = expand(path or Path(f"{base.name}-tuned.yaml")), is_signed if overwrite else _nobodys
    require_own_file(target, ours, "" if overwrite else ", or add --overwrite")
    axes, limit = axes.parse(" ".join(methods).split()), size_of(max_memory, "--max-memory")
    with own_file(target, ours) as write:
        _tune(base, chosen_prompts(base, prompts), axes, limit, model, target, write)


def _nobodys(path: Path) -> bool:
    return False


def _tune(
    base: Recipe,
    prompts: list[str],
    axes: dict[str, list[str]],
    max_memory: int,
    extends: str,
    target: Path,
    write: Callable[[bytes], None],
) -> None:
    from ditstack.compat import hush_loading
    from ditstack.measure.check import remember
    from ditstack.recipe.recipe import Recipe
    from ditstack.tuning.tune import Tuner, written

    hush_loading()
    with telling() as tell:
        notes = target.with_name(f"{target.name}.tune")
        tuner = Tuner(base, base.quality, prompts, axes, max_memory, tell, notes)
        choice = tuner.choose()
    if choice is None:
        tuner.finish()
        out.print(f"out of reach: {tuner.nearest()}", soft_wrap=True, markup=False)
        sys.exit(3)
    write(signed(written(choice, base, extends)).encode())
    tuner.finish()
    remember(Recipe.read(target), choice.run.outcome)
    gate = [f"gate: {verdict}" for verdict in choice.run.outcome.verdicts]
    out.print(
        "\n".join([f"chosen: {choice.run}", *gate, *choice.reasons, f"wrote {target}"]), soft_wrap=True, markup=False
    )
