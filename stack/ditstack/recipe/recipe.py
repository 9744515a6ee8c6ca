"""Recipe: frozen data that names one adapter per stage. Reading, layering and writing are in `layers`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from ditstack.errors import RecipeError
from ditstack.recipe.adapter import STAGES, Adapter, find, suggest
from ditstack.recipe.layers import Layered, plain_layers, read_layers
from ditstack.recipe.model import Model
from ditstack.recipe.places import without_places
from ditstack.recipe.sections import Gate, Prompts, Sampler, Section

TOP_KEYS = ("extends", *STAGES, "sampler", "seed", "prompts", "calibration", "quality")

PLAIN_STAGES = ("model", "distill")
"""What a stack shares with its unaccelerated baseline."""


class Recipe:
    """What to stack on what, and how to sample. Equal recipes make equal pictures on one machine."""

    def __init__(self, name: str, adapters: Mapping[str, Adapter], rest: Mapping[str, Any]) -> None:
        self.name = name
        self.adapters = {stage: adapters[stage] for stage in STAGES if stage in adapters}
        self.sampler: Sampler = rest["sampler"]
        self.seed: int = rest["seed"]
        self.prompts: tuple[str, ...] = rest["prompts"]
        self.calibration: tuple[str, ...] = rest["calibration"]
        self.quality: Gate = rest["quality"]

    @classmethod
    def read(cls, name_or_path: str | Path, changes: list[str] | None = None) -> Recipe:
        """Read a recipe by its name on the shelf or by its path; `changes` are "cache.interval=7" overrides.

        Raises:
            RecipeError: with every reason at once, before anything is loaded.
        """
        layered = read_layers(name_or_path, changes or [])
        return cls.check(layered)

    @classmethod
    def parse(cls, data: Mapping[str, Any], name: str = "recipe", changes: Sequence[str] = ()) -> Recipe:
        """Make a recipe from plain data, such as `Recipe.resolved()` returns; it may extend one on the shelf."""
        return cls.check(plain_layers(data, name, changes))

    @classmethod
    def check(cls, layered: Layered) -> Recipe:
        reasons = [*layered.reasons, *_unknown_top_keys(layered)]
        adapters = {}
        for stage in STAGES:
            if (fields := layered.data.get(stage)) is not None:
                adapters[stage] = _adapter(stage, fields, layered, reasons)
        if layered.data.get("model") is None:
            reasons.append(f"{layered.file}: model: missing; a recipe needs `model: {{method: ...}}`")
        _suppose_sampler(adapters, layered)
        rest = _rest(layered, reasons)
        reasons += _written_for_other_steps(adapters, rest["sampler"].steps, layered)
        reasons += _told_other_times(adapters, rest["sampler"], layered)
        if reasons:
            raise RecipeError(f"recipe {layered.name} cannot be used:", reasons)
        return cls(layered.name, adapters, rest)

    def with_(self, name: str | None = None, **changes: Any) -> Recipe:
        """This recipe with changes laid over it, as by a file that extends it: `with_(cache={"interval": 4}, seed=1)`.

        Args:
            name: of the new recipe; None keeps this one's.
            changes: fields of a stage or of `sampler`, or `seed`, `prompts`, ...; another method, or None, replaces a
                stage whole.

        Raises:
            RecipeError: with every reason at once.
        """
        layered = Layered.plain(name or self.name, self.data())
        layered.add(changes, "with_")
        return Recipe.check(layered)

    @property
    def model(self) -> Model:
        """The adapter of the model stage."""
        model = self.adapters["model"]
        assert isinstance(model, Model)
        return model

    def stages(self) -> Iterator[tuple[str, Adapter]]:
        """The stages that do something, in the one order."""
        return iter(self.adapters.items())

    def plain(self) -> Recipe:
        """The unaccelerated baseline: the same model, LoRA, sampler and seed, nothing else."""
        plain = {stage: adapter for stage, adapter in self.stages() if stage in PLAIN_STAGES}
        kept = {stage: adapter for stage, adapter in plain.items() if adapter.baseline is None}
        fields = {key: value for one in plain.values() for key, value in (one.baseline or {}).items()}
        return Recipe(f"{self.name} (plain)", kept, {**self._rest(), "sampler": self.sampler.changed(**fields)})

    def resolved(self) -> dict[str, Any]:
        """The whole recipe with every default spelt out, as plain data."""
        out: dict[str, Any] = {}
        for stage, adapter in self.stages():
            out[stage] = {"method": adapter.method, **adapter.model_dump(mode="json")}
        out["sampler"] = self.sampler.model_dump(mode="json", exclude_none=True)
        out["quality"] = self.quality.model_dump(mode="json", exclude_none=True)
        return {**out, "seed": self.seed, "prompts": list(self.prompts), "calibration": list(self.calibration)}

    def data(self) -> dict[str, Any]:
        """`resolved`, with pictures and tensors among the model's arguments as they are: what `parse` reads."""
        plain = self.resolved()
        return {**plain, "model": {**plain["model"], "arguments": self.model.arguments}}

    def public(self) -> dict[str, Any]:
        """`resolved`, as it may travel inside a picture: hub ids and names stay, of a path only its last name."""
        texts = ("prompts", "calibration")
        return {key: one if key in texts else without_places(one) for key, one in self.resolved().items()}

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True)

    def _rest(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in Sections.model_fields}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.resolved() == other.resolved()

    def __hash__(self) -> int:
        return hash(self.to_yaml())

    def __repr__(self) -> str:
        return f"Recipe({self.name}: {' > '.join(adapter.method for _, adapter in self.stages())})"


class Sections(Section):
    """What a recipe says besides its stages."""

    sampler: Sampler = Sampler()
    """How the pipeline is called."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the first picture; those after it count up."""
    prompts: Prompts = ()
    """What `run` makes where it is given no prompts."""
    calibration: Prompts = ()
    """What `calibrate` fits to where it is given no prompts."""
    quality: Gate = Gate()
    """What `ditstack check` demands and `ditstack tune` keeps."""


def _suppose_sampler(adapters: Mapping[str, Adapter | None], layered: Layered) -> None:
    """Sample as a stage was made for, where no later layer of the recipe, nor its own, says otherwise."""
    for stage, adapter in adapters.items():
        if adapter is None:
            continue
        for key, value in adapter.sampler.items():
            named = (f"{stage}.{word}" for word in (key, *adapter.sampler_from, "method"))
            layered.suppose(("sampler", key), value, next(word for word in named if word in layered.origin))


def _written_for_other_steps(adapters: Mapping[str, Adapter | None], steps: int, layered: Layered) -> list[str]:
    return [
        f"{layered.where(stage)}: {stage} {adapter.method} names {adapter.schedule_steps} steps, and sampler.steps is "
        f"{steps}; {_instead(adapter)}"
        for stage, adapter in adapters.items()
        if adapter is not None and adapter.schedule_steps not in (None, steps)
    ]


def _instead(adapter: Adapter) -> str:
    if "steps" in adapter.sampler:
        return "leave sampler.steps out, or name as many"
    return "name as many, or end a schedule of letters with ... to repeat it to the end"


def _told_other_times(adapters: Mapping[str, Adapter | None], sampler: Sampler, layered: Layered) -> list[str]:
    """A stage that samples at times of its own would pass over those that are named."""
    return [
        f"{layered.where(f'sampler.{name}')}: sampler.{name}: {stage} {adapter.method} samples at times of its own; "
        "leave one of the two out"
        for stage, adapter in adapters.items()
        if adapter is not None and adapter.baseline is not None
        for name in sampler.times
    ]


def _rest(layered: Layered, reasons: list[str]) -> dict[str, Any]:
    given = {key: layered.data[key] for key in Sections.model_fields if layered.data.get(key) is not None}
    try:
        rest = Sections(**given)
    except ValidationError as error:
        reasons += _explain(error, Sections, (), layered)
        rest = Sections()
    return {key: getattr(rest, key) for key in Sections.model_fields}


def _adapter(stage: str, fields: Mapping[str, Any], layered: Layered, reasons: list[str]) -> Adapter | None:
    fields = dict(fields)
    method = fields.pop("method", None)
    if not isinstance(method, str):
        reasons.append(f"{layered.where(stage)}: {stage}.method: missing; name a method of this stage")
        return None
    try:
        kind = find(stage, method)
    except RecipeError as error:
        reasons.append(f"{layered.where(stage)}: {stage}.method: {error.reasons[0]}")
        return None
    try:
        return kind(**fields)
    except ValidationError as error:
        reasons += _explain(error, kind, (stage,), layered)
        return None


def _unknown_top_keys(layered: Layered) -> list[str]:
    return [
        f"{layered.where(str(key))}: {key}: unknown key; {suggest(str(key), list(TOP_KEYS))}"
        for key in layered.data
        if key not in TOP_KEYS
    ]


def _explain(error: ValidationError, kind: type[BaseModel], above: tuple[str, ...], layered: Layered) -> list[str]:
    """One sentence per mistake: file, dotted path, what was found, what is allowed."""
    out = []
    for item in error.errors():
        path = ".".join([*above, *(str(part) for part in item["loc"])])
        if item["type"] == "extra_forbidden":
            owner = _model_at(kind, item["loc"][:-1])
            text = f"unknown key; {suggest(str(item['loc'][-1]), sorted(owner.model_fields))}"
        else:
            message = item["msg"].removeprefix("Value error, ")
            text = f"found {_short(item['input'])}; {message[:1].lower()}{message[1:]}"
        out.append(f"{layered.where(path)}: {path or above}: {text}")
    return out


def _model_at(kind: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    for part in loc:
        field = kind.model_fields.get(str(part))
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            kind = inner
    return kind


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
