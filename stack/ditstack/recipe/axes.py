"""Words: what `--methods cache=svdcache` means at a stage, without a list of methods.

A word is a method, a scheme of one ("nf4", or "bitsandbytes.int8" where two methods know it), a method with its knob at
a value ("solver.9", "svdcache.2"), or "none". A method takes its fields as the shelf writes them for the same model; a
scheme brings nothing else. What must be fitted is fitted on first use. At `sampler`, which is no stage, a word is a
solver and its steps: "unipc-20".
"""

from __future__ import annotations

import functools
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from ditstack.errors import RecipeError
from ditstack.pipeline import samplers
from ditstack.pipeline.samplers import SAMPLER
from ditstack.recipe.adapter import STAGES, Adapter, find, methods, suggest
from ditstack.recipe.layers import read_layers, shelf_names
from ditstack.recipe.recipe import Recipe

NONE = "none"
AXES = (STAGES[1], SAMPLER, *STAGES[2:])
"""What may vary, in the one order: a LoRA brings its own steps, everything else stands on the sampler."""


def parse(texts: list[str]) -> dict[str, list[str]]:
    """The words of each stage, from "cache=none,reuse", in the one order of stages.

    Raises:
        RecipeError: with every mistake at once.
    """
    found: dict[str, list[str]] = {}
    reasons = []
    for text in texts:
        stage, equals, words = text.partition("=")
        if not equals or stage not in AXES or not all(words.split(",")):
            reasons.append(f"--methods {text}: wanted stage=word,word with a stage of {', '.join(AXES)}")
        elif stage in found:
            reasons.append(f"--methods {text}: {stage} is named twice")
        else:
            found[stage] = list(dict.fromkeys(words.split(",")))
    if reasons:
        raise RecipeError("the matrix cannot be made:", reasons)
    return {stage: found[stage] for stage in AXES if stage in found}


def fields(stage: str, word: str, model: str, few_steps: bool = False) -> dict[str, Any] | None:
    """A recipe's fields for a word at a stage; None leaves the stage out.

    Args:
        few_steps: prefer what the shelf writes beside a few-step LoRA.

    Raises:
        RecipeError: no method knows the word, or several do.
    """
    if word == NONE:
        return None
    if stage == SAMPLER:
        return samplers.named({}, word)
    method, dot, scheme = word.partition(".")
    if dot and scheme in schemes(stage, method):
        return {"method": method, find(stage, method).axis_field: scheme}
    if word in methods(stage):
        return {**on_shelf(stage, word, model, few_steps), **find(stage, word).unattended}
    if holds(stage, word):
        return _held(stage, method, scheme, model)
    knowing = [one for one in methods(stage) if word in schemes(stage, one)]
    own = [one for one in knowing if not find(stage, one).extra] if len(knowing) > 1 else knowing
    if len(own) == 1:  # what two methods know is that of the one which needs no extra packages
        return {"method": own[0], find(stage, own[0]).axis_field: word}
    every = [*methods(stage), *(one for method in methods(stage) for one in schemes(stage, method))]
    hint = f"write one of {', '.join(f'{one}.{word}' for one in knowing)}" if knowing else suggest(word, every)
    raise RecipeError(f"unknown word {word!r} at {stage}:", [hint])


def holds(stage: str, word: str) -> bool:
    """Whether a word says itself where a method's knob stands, as "solver.9" does."""
    method, dot, value = word.partition(".")
    return bool(dot and value) and method in methods(stage) and value not in schemes(stage, method)


def adapter_of(stage: str, given: dict[str, Any]) -> Adapter | None:
    """The method with these fields; None where they cannot be read, which their recipe tells of."""
    try:
        return _read(stage, given)
    except ValidationError:
        return None


def _held(stage: str, method: str, value: str, model: str) -> dict[str, Any]:
    """A method as the shelf writes it beside the model's own steps, with its knob at a value.

    Raises:
        RecipeError: it has no knob, or one that does not go there.
    """
    given = {**on_shelf(stage, method, model, False), **find(stage, method).unattended}
    adapter = adapter_of(stage, given)
    if adapter is None or (turned := adapter.knob) is None:
        raise RecipeError(f"unknown word '{method}.{value}' at {stage}:", [f"{method} has no knob; write {method}"])
    given[turned.field] = yaml.safe_load(value)
    try:
        _read(stage, given)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise RecipeError(
            f"unknown word '{method}.{value}' at {stage}:",
            [f"{method}.{value} sets {turned.field} to {value}: {why[:1].lower()}{why[1:]}"],
        ) from None
    return given


def _read(stage: str, given: dict[str, Any]) -> Adapter:
    return find(stage, given["method"])(**{key: one for key, one in given.items() if key != "method"})


def on_base(stage: str, given: dict[str, Any], sampler: dict[str, Any]) -> dict[str, Any]:
    """The fields with those that a method takes from the base recipe's sampler, such as the baseline's steps."""
    adapter = adapter_of(stage, given)
    taken = adapter.knob.of_base if adapter is not None and adapter.knob is not None else {}
    return {**given, **{key: sampler[name] for key, name in taken.items() if name in sampler}}


def schemes(stage: str, method: str) -> tuple[str, ...]:
    """The words that a method takes as its scheme: the allowed values of the field that it declares for that."""
    if method not in methods(stage):
        return ()
    kind = find(stage, method)
    return get_args(kind.model_fields[kind.axis_field].annotation) if kind.axis_field else ()


@functools.cache
def on_shelf(stage: str, method: str, model: str, few_steps: bool) -> dict[str, Any]:
    """The fields that the shelf writes for a method on this model: those of the plainest recipe that names it."""
    named = []
    for name in shelf_names():
        data = read_layers(name, []).data
        here = data.get(stage)
        if data["model"]["method"] == model and here is not None and here["method"] == method:
            named.append((("distill" in data) != few_steps, len(here), len(data), name, here))
    return min(named)[-1] if named else {"method": method}


def is_plain(recipe: Recipe, stage: str) -> bool:
    """Whether a stage is left out, or changes nothing as it is set."""
    adapter = recipe.adapters.get(stage)
    if adapter is None:
        return True
    neutral = type(adapter).neutral
    return neutral is not None and all(getattr(adapter, key) == value for key, value in neutral.items())
