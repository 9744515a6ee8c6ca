"""What methods declare: knobs, words, incidental fields; and that the stack knows no field of a method by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ditstack
from ditstack.recipe.adapter import STAGES, Adapter, find, methods
from ditstack.recipe.declared import Knob

HOUSE = Path(ditstack.__file__).parent
ANYWHERE = {"steps", "guidance", "frames", "scheduler", "settings", "attention"}
"""Fields of the recipe's own sampler, and a stage."""
ELSEWHERE = {
    "batch": ("batch/",),  # the noun itself
    # a column of a batch's rows; an argument of diffusers' pipelines
    "image": ("batch", "weights", "testing", "assembly/departures.py"),
    "order": ("assembly/departures.py",),  # of a scheduler: its passes a step
    "strength": ("batch", "weights", "testing"),
    "rank": ("batch",),  # a process's number, in its records
    "macs": ("batch", "matrix", "tuning/evaluation.py", "measure/promise"),  # a figure of reports; a search's costs
    "factors": ("batch/", "calibration/calibrate.py"),  # the folder of factors files
    "calibrate": ("stack.py", "measure/promise/certify.py"),  # a key of a report's seconds; the command's name
    "anchor": ("calibration/fits.py",),  # the name of a tensor among factors
    "tries": ("recipe/sections.py",),  # a key of a promise
}
"""Words that are fields of some method too, with where the stack writes them and means something else."""
EVERY = [find(stage, method) for stage in STAGES for method in methods(stage)]


def own_fields(kind: type[Adapter]) -> set[str]:
    """Those that the method's file declares, not the stack's own classes."""
    of_the_stack = [one for one in kind.__mro__ if issubclass(one, Adapter) and one.__module__.startswith("ditstack.")]
    return set(kind.model_fields) - {name for one in of_the_stack for name in one.model_fields}


def named(source: str, fields: set[str]) -> Iterator[str]:
    """Strings of a module, and names that it asks an object for, that are fields of methods."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in fields:
            yield f"{node.value} in line {node.lineno}"


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: str(path.relative_to(HOUSE)))
def test_the_stack_names_no_field_of_a_method(path: Path) -> None:
    here = str(path.relative_to(HOUSE))
    meant = {word for word, places in ELSEWHERE.items() if here.startswith(places)} | ANYWHERE
    fields = {name for kind in EVERY for name in own_fields(kind)} - meant
    assert not [*named(path.read_text(encoding="utf-8"), fields)]


def test_the_rule_on_fields_can_fail() -> None:
    assert [*named("cache = getattr(adapter, 'interval', 1)", {"interval"})] == ["interval in line 1"]
    assert {"interval", "threshold", "scheme", "schedule", "tolerance"} <= {
        one for kind in EVERY for one in own_fields(kind)
    }


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__module__.removeprefix("ditstack_adapters."))
def test_what_a_method_declares_are_its_own_fields(kind: type[Adapter]) -> None:
    declared = {*kind.incidental, *kind.unattended, *kind.sampler_from, *(kind.neutral or {}), *kind.trial}
    declared |= {one for one in (kind.axis_field, kind.factors_field) if one}
    assert declared <= set(kind.model_fields)


def test_a_knob_scales_what_is_there_and_keeps_whole_numbers_whole() -> None:
    assert Knob("window", scales=(0.5, 1, 2)).settings(3) == (2, 3, 6)
    assert Knob("window", scales=(0.1, 1)).settings(1) == (1,)
    assert Knob("threshold", scales=(0.5, 4)).settings(0.1) == (0.05, 0.4)
    assert Knob("gap", values=(2, 3)).settings(7) == (2, 3)
    with pytest.raises(ValueError, match="either values or scales"):
        Knob("gap")
