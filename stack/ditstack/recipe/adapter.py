"""Adapter: one acceleration method. Its fields are the recipe's keys; the validated object is what acts on the pipe."""

from __future__ import annotations

import difflib
import filecmp
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from ditstack.errors import RecipeError
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.declared import Knob, SearchedFields, Trunk

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.pipeline.pipe import Pipe
    from ditstack.recipe.calibration import Calibration

STAGES = ("model", "distill", "quantize", "attention", "cache", "compile")
"""The one order, and why: a LoRA is fused (distill) before weights are rounded (quantize); the attention kernel
changes the features that a cache sees; a cache's factors are fitted to the weights and attention that run; compile
wraps what is left."""

NAMESPACE = "ditstack_adapters"


class Adapter(BaseModel):
    """One method of one stage. Subclass it in `ditstack_adapters/<stage>/<method>.py`; that is all.

    `needs`, `gives` and `drops` may depend on the fields, so they are properties.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, protected_namespaces=(), use_attribute_docstrings=True
    )

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

    fits_last: ClassVar[bool] = False
    """Whether `fit` wants all other stages to stand, fitted, when it runs."""

    axis_field: ClassVar[str] = ""
    """The field whose allowed values are words of the stage, as `nf4` is in `--methods quantize=nf4`."""

    factors_field: ClassVar[str] = ""
    """The field that names the file of its factors."""

    unattended: ClassVar[dict[str, Any]] = {}
    """Fields at which it fits what it lacks on first use; `tune` and a matrix set them."""

    fittable: ClassVar[dict[str, Any]] = {}
    """Fields at which it has something to fit that it computes by a rule of its own by default."""

    incidental: ClassVar[frozenset[str]] = frozenset()
    """Fields that pictures do not depend on: where files lie, when to fit, on which device."""

    sampler_from: ClassVar[tuple[str, ...]] = ()
    """Fields that `sampler` may come from beside those of the same names, such as the name of a preset."""

    @property
    def method(self) -> str:
        """Its word in a recipe: the name of its file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset()

    @property
    def needs_later(self) -> frozenset[Capability]:
        """What a later stage must give, unless the machine does: without it this stage would be a loss."""
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

        Each comes from the adapter's field of the same name, or from one of `sampler_from`.
        """
        return {}

    @property
    def baseline(self) -> dict[str, Any] | None:
        """The sampler's fields of the baseline, which leaves this stage out; None where the baseline shares it."""
        return None

    @property
    def schedule_steps(self) -> int | None:
        """The one number of steps that its schedule is written for; None where it serves any."""
        return None

    @property
    def knob(self) -> Knob | None:
        """What `tune` turns; None where there is nothing to turn."""
        return None

    @property
    def searched(self) -> SearchedFields | None:
        """What `search` changes; None where it has no schedule of letters."""
        return None

    def gentlest(self, steps: int) -> dict[str, Any]:
        """Fields at which it skips as little as it can of a generation of `steps`: the first value of its knob."""
        return {self.knob.field: self.knob.values[0]} if self.knob and self.knob.values else {}

    @property
    def wants_factors(self) -> bool:
        """Whether `fit` must have run, now or for a factors file."""
        return False

    @property
    def aims_at(self) -> int:
        """Steps of the plain model whose latents `fit` aims at, as `Calibration.aims`; 0 where it wants none."""
        return 0

    @property
    def fitted_for(self) -> frozenset[str]:
        """Fields of the sampler (steps, guidance, size, frames) at which its factors serve no other value."""
        return frozenset()

    def unfit(self, pipe: Pipe, tensors: dict[str, Tensor]) -> list[str]:
        """Why `take` cannot serve with these: tensors that are missing, unknown, or of a wrong shape or dtype."""
        return []

    @property
    def fits_on_first_use(self) -> bool:
        """Whether missing or stale factors are fitted without being asked for."""
        return all(getattr(self, key) == value for key, value in self.unattended.items())

    @property
    def factors_path(self) -> str | None:
        """The file that its recipe names for its factors."""
        return getattr(self, self.factors_field) if self.factors_field else None

    def inspect(self) -> None:
        """Refuse what can be known to fail before any weight of the model is loaded, such as a missing file."""

    def apply(self, pipe: Pipe) -> None:
        """Change the pipe in place."""
        raise NotImplementedError

    def fit(self, pipe: Pipe, calibration: Calibration) -> dict[str, Tensor]:
        """What must be fitted to the pipe as it stands: named tensors."""
        raise NotImplementedError

    def take(self, pipe: Pipe, tensors: dict[str, Tensor]) -> None:
        """Put to use what was fitted, now or earlier, in place of what was taken before."""
        raise NotImplementedError


class Cache(Adapter):
    """A method of the cache stage: it sits on the known blocks, alone."""

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset({Capability.BLOCKS, Capability.FREE_TRUNK})

    @property
    def drops(self) -> frozenset[Capability]:
        return frozenset({Capability.FREE_TRUNK})

    def kinds(self, steps: int) -> tuple[str, ...] | None:
        """How each step is to run; None where only the pictures decide."""
        return None

    def kept(self, trunk: Trunk) -> float:
        """Numbers that it holds between steps, at most, for one row: a picture and a branch of its guidance."""
        return trunk.feature

    def weighs(self, trunk: Trunk) -> float:
        """Numbers of the factors that it holds beside the weights, at most."""
        return 0.0


class Quantizer(Adapter):
    """A method of the quantize stage: it rounds the linears of the known blocks, once."""

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset({Capability.BLOCKS, Capability.FLOAT_WEIGHTS})

    @property
    def drops(self) -> frozenset[Capability]:
        return frozenset({Capability.FLOAT_WEIGHTS})

    def rounds(self, name: str, columns: int) -> bool:
        """Whether it rounds the linear of this name inside its block, of this width in."""
        return True

    def stored(self, rows: int, columns: int, item: int) -> float:
        """Bytes of a rounded weight (rows, columns) and of what stands beside it; `item` of one number before.

        Here those of the unrounded one: what a method that says nothing takes at most.
        """
        return rows * columns * item


class Attention(Adapter):
    """A kernel at the attention stage: it takes over the known blocks' attention, alone."""

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset({Capability.BLOCKS, Capability.FREE_ATTENTION})

    @property
    def drops(self) -> frozenset[Capability]:
        return frozenset({Capability.FREE_ATTENTION})

    def dense_kernels(self) -> dict[str, Any]:
        """Kernels by name, (q, k, v, call) -> out or Declined, that may stand for PyTorch's own where no mask is."""
        return {}


def methods(stage: str) -> list[str]:
    """The words that a recipe may name at `stage`: the files in that folder, whichever distribution brings them."""
    return sorted(_files(stage))


def find(stage: str, method: str) -> type[Adapter]:
    """The Adapter subclass in `ditstack_adapters.<stage>.<method>`.

    Raises:
        RecipeError: there is no such method, or several files bring it; the text names those that there are.
    """
    files = _files(stage)
    if method not in files:
        raise RecipeError(
            f"unknown {stage} method {method!r}", [f"unknown method {method!r}; {suggest(method, sorted(files))}"]
        )
    if len(files[method]) > 1:
        why = f"{method!r} is defined twice: {' and '.join(files[method])}; rename or uninstall one of them"
        raise RecipeError(f"{stage} method {method!r} cannot be used:", [why])
    module = importlib.import_module(f"{NAMESPACE}.{stage}.{method}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Adapter) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise RecipeError(f"{module.__name__} must hold exactly one Adapter", [f"it holds {len(found)}"])
    return found[0]


def _files(stage: str) -> dict[str, list[str]]:
    """Every word of a stage with the files that bring it: one, unless two distributions chose the same word.

    Copies of one file, as in a checkout beside an installed wheel, are one method.
    """
    if importlib.util.find_spec(f"{NAMESPACE}.{stage}") is None:
        return {}
    found: dict[str, list[str]] = {}
    folders = dict.fromkeys(Path(one).resolve() for one in importlib.import_module(f"{NAMESPACE}.{stage}").__path__)
    for folder in folders:
        for module in pkgutil.iter_modules([str(folder)]):
            if not module.name.startswith("_"):
                file, known = folder / f"{module.name}.py", found.setdefault(module.name, [])
                if not any(filecmp.cmp(file, one, shallow=False) for one in known):
                    known.append(str(file))
    return found


def suggest(word: str, known: list[str]) -> str:
    """'did you mean ...?' where something is near, else the words that there are."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
