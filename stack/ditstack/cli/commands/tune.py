"""`ditstack tune`: the fastest stack that keeps a gate on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditstack.cli.terminal import Changes, Overwrite, PromptsOrCount, chosen_prompts, err, out, size_of, telling
from ditstack.errors import BadFile
from ditstack.files import expand
from ditstack.marks import is_signed, signed

if TYPE_CHECKING:
    from ditstack.recipe.recipe import Recipe


PROMPTS = "16"
"""Of a gate, where none are given."""


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
    prompts: PromptsOrCount = None,
    changes: Changes = [],  # noqa: B006
    path: Annotated[
        Path | None, typer.Option("--out", help="The recipe to write; MODEL-tuned.yaml by default.")
    ] = None,
    promise: Annotated[
        bool, typer.Option("--promise", help="Keep the recipe's promise about every picture, at the least work.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Find the fastest stack that keeps a gate here, say why, and write its recipe; exit code 3 if there is none.

    A gate is judged by the worse end of its 95 % interval: more prompts make it narrower. With --promise it is the
    cheapest of the stacks tried that is proved to keep `quality.promise`. Killed, the same command goes on.
    """
    from ditstack.recipe import axes
    from ditstack.recipe.recipe import Recipe

    limits = {"psnr_min": psnr_min, "psnr_p5_min": psnr_p5_min, "ssim_min": ssim_min}
    limits |= {"agreement_drop_max": agreement_drop_max, "speedup_min": speedup_min}
    named = [f"{name}={limit}" for name, limit in limits.items() if limit is not None]
    base = Recipe.read(model, [*changes, *(f"quality.{one}" for one in (*named, *gates))])
    _check_aim(base, promise, [*named, *gates], max_memory)
    target, ours = expand(path or Path(f"{base.name}-tuned.yaml")), is_signed if overwrite else _nobodys
    axes, limit = axes.parse(" ".join(methods).split()), size_of(max_memory, "--max-memory")
    _search(base, promise, prompts, axes, limit, model, target, ours)


def _search(
    base: Recipe,
    promise: bool,
    prompts: str | None,
    axes: dict[str, list[str]],
    max_memory: int,
    extends: str,
    target: Path,
    ours: Callable[[Path], bool],
) -> None:
    """Look for the stack that keeps the promise, or the gate, and write its recipe."""
    from ditstack.folders import own_file

    with own_file(target, ours, "" if ours is is_signed else ", or add --overwrite") as write:
        if promise:
            _tune_promised(base, prompts, axes, extends, target, write)
        else:
            _tune(base, prompts or PROMPTS, axes, max_memory, extends, target, write)


def _check_aim(base: Recipe, promise: bool, gates: list[str], max_memory: str) -> None:
    """Refuse to tune for nothing, and what --promise does not go with.

    Raises:
        BadFile: with what to write instead.
    """
    if not promise:
        if not base.quality.limits():
            raise BadFile("tune needs a gate; give --psnr-p5-min 30, or a recipe with one")
        return
    if base.quality.promise is None:
        raise BadFile(
            f"recipe {base.name} promises nothing; write quality: {{promise: {{psnr: 32}}}}, "
            "or --set quality.promise.psnr=32"
        )
    if gates or max_memory:
        found = ", ".join([*gates, *(["--max-memory"] if max_memory else [])])
        raise BadFile(
            f"--promise looks for the cheapest stack that keeps the promise alone; found {found}; leave it out, "
            "or tune for the gate without --promise"
        )


def _tune_promised(
    base: Recipe,
    given: str | None,
    axes: dict[str, list[str]],
    extends: str,
    target: Path,
    write: Callable[[bytes], None],
) -> None:
    from ditstack.compat import hush_loading
    from ditstack.measure.promise.certify import prompts_wanted
    from ditstack.measure.told import Told
    from ditstack.tuning.promised import Search

    hush_loading()
    count = prompts_wanted(base, ordered=True)[1]
    prompts = chosen_prompts(base, str(count) if given is None else given)
    with Told(err).shown() as told:
        search = Search(base.with_(target.stem), prompts, axes, told.tell, told.count)
        certificate = search.choose()
    if certificate is None:
        out.print(f"none of {len(search.tried)} stacks is proved to keep the promise ({base.quality.promise})")
        sys.exit(3)
    write(signed(search.written(certificate, extends)).encode())
    lines = [*map(str, certificate.tested), f"certified: {certificate}", f"wrote {target}"]
    out.print("\n".join(lines), soft_wrap=True, markup=False)


def _nobodys(path: Path) -> bool:
    return False


def _tune(
    base: Recipe,
    given: str,
    axes: dict[str, list[str]],
    max_memory: int,
    extends: str,
    target: Path,
    write: Callable[[bytes], None],
) -> None:
    from ditstack.compat import hush_loading
    from ditstack.measure.check import remember
    from ditstack.recipe.recipe import Recipe
    from ditstack.tuning.tune import Tuner, hand_over, written

    hush_loading()
    with telling() as tell:
        notes = target.with_name(f"{target.name}.tune")
        tuner = Tuner(base, base.quality, chosen_prompts(base, given), axes, max_memory, tell, notes)
        choice = tuner.choose()
    if choice is None:
        tuner.finish()
        out.print(f"out of reach: {tuner.nearest()}", soft_wrap=True, markup=False)
        sys.exit(3)
    write(signed(written(choice, base, extends)).encode())
    again = Recipe.read(target)
    hand_over(choice.run.option.recipe(base), again)
    tuner.finish()
    remember(again, choice.run.outcome)
    gate = [f"gate: {verdict}" for verdict in choice.run.outcome.verdicts]
    out.print(
        "\n".join([f"chosen: {choice.run}", *gate, *choice.reasons, f"wrote {target}"]), soft_wrap=True, markup=False
    )
