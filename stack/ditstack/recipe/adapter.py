"""Adapter: one acceleration method. Its fields are the recipe's keys; the validated object is what acts on the pipe."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from ditstack.errors import RecipeError
from ditstack.recipe.capabilities import Capability

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.pipeline.pipe import Pipe

STAGES = ("model", "distill", "quantize", "attention", "cache", "compile")
"""The one order, and why: a LoRA is fused (distill) before weights are rounded (quantize); the attention kernel
changes the features that a cache sees; a cache's factors are fitted to the weights and attention that run; compile
wraps what is left."""

NAMESPACE = "ditstack_adapters"


class Adapter(BaseModel):
    """One method of one stage. Subclass it in `ditstack_adapters/<stage>/<method>.py`; that is all.

    `needs`, `gives` and `drops` may depend on the fields, so they are properties.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    packages: ClassVar[tuple[str, ...]] = ()
    """Import names of the packages that it needs beyond ditstack's own."""

    extra: ClassVar[str] = ""
    """The optional dependency group of ditstack that brings `packages`, if there is one."""

    neutral: ClassVar[dict[str, Any] | None] = None
    """Fields at which it changes nothing, so that pictures equal the plain pipe's; None where there are none."""

    trial: ClassVar[dict[str, Any]] = {}
    """Fields at which it acts on a very small model, where its defaults would find nothing to do."""

    rounds_activations: ClassVar[bool] = False
    """Whether it rounds activations: then the last bit of a float may tip a rounding, and equal means nearly equal."""

    fitted_on: ClassVar[tuple[str, ...]] = ()
    """Further components of the pipeline that `fit` looks at, such as "vae": another one makes its factors stale."""

    per_item: ClassVar[bool] = True
    """Whether an item's picture never depends on its neighbours in the batch."""

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset()

    @property
    def gives(self) -> frozenset[Capability]:
        return frozenset()

    @property
    def drops(self) -> frozenset[Capability]:
        return frozenset()

    @property
    def sampler(self) -> dict[str, Any]:
        """The sampler's fields that it was made for; what a recipe says of them beside it, or later, goes before.

        Each comes from the adapter's field of the same name, or from its field `preset`.
        """
        return {}

    @property
    def schedule_steps(self) -> int | None:
        """The one number of steps that its schedule is written for; None where it serves any."""
        return None

    @property
    def wants_factors(self) -> bool:
        """Whether `fit` must have run, now or for a factors file."""
        return False

    @property
    def fitted_for(self) -> frozenset[str]:
        """Fields of the sampler (steps, guidance, size, frames) at which its factors serve no other value."""
        return frozenset()

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        """Why `take` cannot serve with these: tensors that are missing, unknown, or of a wrong shape or dtype."""
        return []

    def inspect(self) -> None:
        """Refuse what can be known to fail before any weight of the model is loaded, such as a missing file."""

    def apply(self, pipe: Pipe) -> None:
        """Change the pipe in place."""
        raise NotImplementedError

    def fit(self, pipe: Pipe, calibration: Any) -> dict[str, Tensor]:
        """What must be fitted to the pipe as it stands: named tensors."""
        raise NotImplementedError

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        """Put to use what was fitted, now or earlier. A cache need not: it reads `pipe.factors`."""


class Cache(Adapter):
    """A method of the cache stage: it sits on the known blocks, alone."""

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset({Capability.BLOCKS, Capability.FREE_TRUNK})

    @property
    def drops(self) -> frozenset[Capability]:
        return frozenset({Capability.FREE_TRUNK})


class Attention(Adapter):
    """A kernel at the attention stage: it takes over the known blocks' attention, alone."""

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset({Capability.BLOCKS, Capability.FREE_ATTENTION})

    @property
    def drops(self) -> frozenset[Capability]:
        return frozenset({Capability.FREE_ATTENTION})


def methods(stage: str) -> list[str]:
    """The words that a recipe may name at `stage`: the files in that folder, whichever distribution brings them."""
    if importlib.util.find_spec(f"{NAMESPACE}.{stage}") is None:
        return []
    package = importlib.import_module(f"{NAMESPACE}.{stage}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def find(stage: str, method: str) -> type[Adapter]:
    """The Adapter subclass in `ditstack_adapters.<stage>.<method>`.

    Raises:
        RecipeError: there is no such method; the text lists those that there are.
    """
    known = methods(stage)
    if method not in known:
        raise RecipeError(f"unknown {stage} method {method!r}", [suggest(method, known)])
    module = importlib.import_module(f"{NAMESPACE}.{stage}.{method}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Adapter) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise RecipeError(f"{module.__name__} must hold exactly one Adapter", [f"it holds {len(found)}"])
    return found[0]


def missing_packages(adapter: Adapter) -> list[str]:
    """Those of `adapter.packages` that are not installed here."""
    return [name for name in adapter.packages if importlib.util.find_spec(name) is None]


def suggest(word: str, known: list[str]) -> str:
    """'did you mean ...?' where something is near, else the words that there are."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
