"""Survey: what a matrix asks for: the axes, the prompts, the gate, and the recipe of every combination."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from pydantic import BaseModel

from ditstack.pipeline import samplers
from ditstack.pipeline.samplers import SAMPLER
from ditstack.recipe.axes import AXES, NONE, adapter_of, is_plain, on_base
from ditstack.recipe.axes import fields as fields_of
from ditstack.recipe.layers import Layered
from ditstack.recipe.recipe import Gate, Recipe
from ditstack.report import FILED

GATE = Gate(psnr_p5_min=30)
"""What a cell must keep to be ok where the base recipe names no gate."""
DISTILL = "distill"
FEW = (4, 8)
"""Schedules on which caches are set beside one step fewer."""
CHANGES = "--methods"


class Survey(BaseModel):
    """Everything that decides a matrix; a folder that was begun with another one is refused."""

    model_config = FILED

    name: str
    base: dict[str, Any]
    """The resolved recipe that every cell extends."""
    axes: dict[str, list[str]]
    prompts: list[str]
    pictured: int = 3
    """So many prompts are shown."""

    @classmethod
    def of(cls, base: Recipe, axes: dict[str, list[str]], prompts: list[str]) -> Survey:
        """A survey whose words are known and whose combinations can be read.

        Raises:
            RecipeError: a word means nothing at its stage.
        """
        own = base.adapters.get(DISTILL)
        if DISTILL in axes and own is not None and own.baseline is not None:  # its steps are not the plain model's
            base = base.with_(**{DISTILL: None, SAMPLER: {"steps": base.plain().sampler.steps}})
        survey = cls(name=base.name, base=base.resolved(), axes=axes, prompts=prompts)
        for stage, each in axes.items():
            for word in each:
                fields_of(stage, word, survey.model)
        return survey

    @property
    def model(self) -> str:
        return self.base["model"]["method"]

    @property
    def gate(self) -> Gate:
        own = Gate(**self.base["quality"])
        return own if own.limits() else GATE.model_copy(update={"promise": own.promise})

    def combinations(self) -> Iterator[dict[str, str]]:
        """Words by stage. The quantizer varies fastest and the LoRA slowest, so that references are made once."""
        slow_first = sorted(self.axes, key=lambda stage: (stage == "quantize", AXES.index(stage)))
        for chosen in product(*(self._none_first(stage) for stage in slow_first)):
            yield {stage: dict(zip(slow_first, chosen, strict=True))[stage] for stage in self.axes}

    def recipe(self, chosen: dict[str, str], changes: dict[str, Any] | None = None) -> Recipe:
        """The recipe of a combination; `changes` lie on top.

        Raises:
            RecipeError: it cannot be read.
        """
        few_steps, word = self.lora(chosen) != NONE, chosen.get(SAMPLER, NONE)
        own = self.base[SAMPLER]
        stages = [stage for stage in self.axes if stage != SAMPLER]
        base = {**self.base, **dict.fromkeys(stages), SAMPLER: own if word == NONE else {}}
        fields = {stage: self._fields(stage, chosen[stage], few_steps) for stage in stages if stage in chosen}
        layered = Layered.plain(name_of(chosen), base)
        layered.add(fields if word == NONE else {**fields, SAMPLER: samplers.named(own, word)}, CHANGES)
        if changes:
            layered.add(changes, CHANGES)
        return Recipe.check(layered)

    def _fields(self, stage: str, word: str, few_steps: bool) -> dict[str, Any] | None:
        found = fields_of(stage, word, self.model, few_steps)
        return None if found is None else on_base(stage, found, self.base[SAMPLER])

    def lora(self, chosen: dict[str, str]) -> str:
        """The word at distill where the plain model with it is a baseline of its own: a LoRA makes other pictures.

        A sampler that is fitted to the model accelerates as a cache does: it is measured against the plain model.
        """
        word = chosen.get(DISTILL, NONE)
        fields = fields_of(DISTILL, word, self.model, True)
        adapter = None if fields is None else adapter_of(DISTILL, fields)
        return word if adapter is None or adapter.baseline is None else NONE

    def parts(self, chosen: dict[str, str]) -> list[dict[str, str]]:
        """What accelerates in a combination, each alone, on the same LoRA; empty where that is fewer than two."""
        acting = [stage for stage in chosen if not self._is_plain(chosen, stage)]
        if len(acting) < 2:
            return []
        idle = {stage: self._plain_word(chosen, stage) for stage in chosen}
        return [{**idle, stage: chosen[stage]} for stage in acting]

    def plain(self, chosen: dict[str, str]) -> Recipe:
        """The plain model with all its steps, on the LoRA of a combination: what it is measured against."""
        return self.recipe(self._on_lora(chosen)).plain()

    def is_sampler_alone(self, chosen: dict[str, str]) -> bool:
        """Whether a combination is the plain model by another solver, or in fewer steps: what controls are."""
        return all(self._is_plain(chosen, stage) for stage in chosen if stage != SAMPLER)

    def few(self) -> list[tuple[str, int]]:
        """(LoRA, steps) of every short schedule on which caches are set beside one step fewer.

        A fitted sampler has no schedule of one step fewer: that is another fit.
        """
        if "cache" not in self.axes:
            return []
        found = []
        for distill in self.axes.get(DISTILL, [NONE]):
            if self.lora({DISTILL: distill}) != distill:
                continue
            own = self.recipe({DISTILL: distill} if DISTILL in self.axes else {}).sampler.steps
            found += [(distill, steps) for steps in ([own] if own <= max(FEW) else FEW)]
        return found

    def _on_lora(self, chosen: dict[str, str]) -> dict[str, str]:
        return {DISTILL: self.lora(chosen)} if DISTILL in chosen else {}

    def _is_plain(self, chosen: dict[str, str], stage: str) -> bool:
        """Whether a stage of a combination accelerates nothing: a LoRA is a part of the baseline."""
        if stage == DISTILL:
            return self.lora(chosen) == chosen[stage]
        alone = {**self._on_lora(chosen), stage: chosen[stage]}
        if stage == SAMPLER:
            return self.recipe(alone).sampler == self.plain(chosen).sampler
        return is_plain(self.recipe(alone), stage)

    def _plain_word(self, chosen: dict[str, str], stage: str) -> str:
        """The word that leaves a stage as it is; a combination's own where there is none."""
        lora = self._on_lora(chosen)
        if stage == DISTILL:
            return lora[stage]
        plain = (word for word in self.axes[stage] if self._is_plain({**lora, stage: word}, stage))
        return next(plain, chosen[stage])

    def _none_first(self, stage: str) -> list[str]:
        return sorted(self.axes[stage], key=lambda word: word != NONE)


def name_of(chosen: dict[str, str]) -> str:
    """A combination's name: its words in the order of stages."""
    return "-".join(chosen.values())
