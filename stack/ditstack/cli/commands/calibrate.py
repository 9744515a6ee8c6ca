"""`ditstack calibrate`: a recipe's factors, and the certificate of its promise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditstack.cli.terminal import Changes, PromptsFile, RecipeName, chosen_prompts, err, out
from ditstack.errors import BadFile
from ditstack.files import read_prompts

if TYPE_CHECKING:
    from ditstack.measure.told import Told
    from ditstack.recipe.recipe import Recipe


def calibrate(
    recipe: RecipeName,
    prompts: PromptsFile = None,
    samples: Annotated[int, typer.Option(min=2, help="How many prompts factors are fitted to at most.")] = 16,
    pictures: Annotated[
        int, typer.Option(min=0, help="How many a promise is tested on; as many as it wants by default.")
    ] = 0,
    factors: Annotated[Path | None, typer.Option("--out", help="The file to write factors to.")] = None,
    changes: Changes = [],  # noqa: B006
) -> None:
    """Fit a recipe's factors to what runs, and prove its promise; exit code 3 if no setting is proved to keep it.

    Killed, it goes on where it was. A promise is tested on prompts that nothing was fitted to.
    """
    from ditstack.recipe.recipe import Recipe

    read = Recipe.read(recipe, changes)
    given = read_prompts(prompts) if prompts else None
    from ditstack.calibration.calibrate import calibrate as fit
    from ditstack.calibration.calibrate import wanting
    from ditstack.measure.told import Told

    with Told(err).shown() as told:
        if wanting(read) or read.quality.promise is None:
            wanted = (given or list(read.calibration))[:samples]
            out.print(f"wrote {fit(read, wanted, factors, told.tell, told.count)}", soft_wrap=True)
            given = None if given is None else given[samples:]
        kept = read.quality.promise is None or _prove(read, given, pictures, told)
    sys.exit(0 if kept else 3)


def _prove(recipe: Recipe, given: list[str] | None, pictures: int, told: Told) -> bool:
    """Find the cheapest setting that keeps the promise; whether there is one."""
    from ditstack.calibration.certificate import certificate_file
    from ditstack.measure.promise.certify import certify, prompts_wanted

    assert recipe.quality.promise is not None
    count = pictures or prompts_wanted(recipe)[1]
    try:
        prompts = chosen_prompts(recipe, str(count)) if given is None else given[: pictures or None]
    except BadFile as error:
        raise BadFile(f"the promise wants {count} prompts, and {error}") from None
    certificate = certify(recipe, prompts, told.tell, told.count)
    if certificate is None:
        out.print(f"no setting is proved to keep the promise ({recipe.quality.promise}): run every step in full")
        return False
    lines = [*map(str, certificate.tested), f"certified: {certificate}", f"wrote {certificate_file(recipe)}"]
    out.print("\n".join(lines), soft_wrap=True)
    return True
