"""`ditstack check`: does a recipe keep its quality gate, and its promise, on this machine?"""

from __future__ import annotations

import json
import sys

from ditstack.cli.terminal import AsJson, Changes, PromptsOrCount, RecipeName, chosen_prompts, err, out, telling


def check(
    recipe: RecipeName,
    prompts: PromptsOrCount = None,
    changes: Changes = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Measure a recipe's quality gate against its unaccelerated baseline, and its promise on prompts that its
    certificate has not seen; exit code 3 where either is missed."""
    from ditstack.recipe.recipe import Recipe

    read = Recipe.read(recipe, changes)
    wanted = chosen_prompts(read, prompts)
    from ditstack.calibration.certificate import certificate_file
    from ditstack.compat import hush_loading
    from ditstack.files import is_there
    from ditstack.measure.check import check as measure
    from ditstack.measure.promise.coverage import coverage

    hush_loading()
    with telling() as tell:
        certified = read.quality.promise is not None and is_there(certificate_file(read))
        promised = coverage(read, wanted, tell) if certified else None
        outcome = measure(read, wanted, tell) if read.quality.limits() or promised is None else None
    if as_json:
        found = {} if outcome is None else json.loads(outcome.model_dump_json())
        print(json.dumps({**found, **({} if promised is None else {"promise": promised.figures()})}, indent=2))
    else:
        err.print("\n".join([] if outcome is None else outcome.left_out), soft_wrap=True, markup=False, style="dim")
        verdicts = [] if outcome is None else [*outcome.verdicts, outcome.control]
        lines = [str(one) for one in (*verdicts, promised) if one is not None]
        if read.quality.promise is not None and not certified:
            lines.append(f"promise: nothing is certified here yet: ditstack calibrate {recipe}")
        out.print("\n".join(lines), soft_wrap=True, markup=False)
    sys.exit(0 if all(one is None or one.ok for one in (outcome, promised)) else 3)
