"""lora: low-rank changes of the weights (arXiv 2106.09685), above all those that let a model paint in few steps.

W' = W + scale * B A. By default B A is added to W before weights are rounded; with `fuse: false` it runs beside the
rounded W, so that the pipeline's own `set_adapters` and `load_lora_weights(hotswap=True)` can change it later.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ditstack.plugin import Adapter, BadFile, BadPipeline, Capability, Knob, suggest

from ._presets import PRESETS

if TYPE_CHECKING:
    from torch import Tensor

    from ditstack.plugin import Pipe, lora_probe

STILL = 1e-6
"""A move of the output by a smaller share is none."""
HALF, SAME = 0.5, 0.9
"""The least share of the move that rounding must leave, and the cosine above which its direction is the same."""

EMBEDDED = Path(__file__).parent / "embedded"
WHERE = ("source", "weight_name", "revision")


def _does_something(scale: float) -> float:
    if scale == 0:
        raise ValueError("a LoRA of scale 0 changes nothing; leave it out")
    return scale


Scale = Annotated[float, AfterValidator(_does_something)]


class Weights(BaseModel):
    """One file of LoRA weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    source: str
    """A .safetensors file, a folder that holds one, a hub id, or `embedded:NAME` for one that comes with ditstack."""
    weight_name: str | None = None
    """Which file, where the source holds several."""
    revision: str | None = None
    """The branch, tag or commit on the hub; None takes the newest."""
    scale: Scale = 1.0
    """What B A is multiplied by."""
    into: Literal["transformer", "transformer_2"] = "transformer"
    """Which of the pipeline's transformers it changes."""

    def locate(self) -> Path:
        """The file.

        Raises:
            BadFile: there is none.
        """
        from ditstack.plugin import lora_files

        if not self.source.startswith("embedded:"):
            return lora_files.locate(self.source, self.weight_name, self.revision)
        folder = EMBEDDED / self.source.removeprefix("embedded:")
        if not folder.name.endswith("-lora") or not folder.is_dir():
            known = [f"embedded:{one.name}" for one in sorted(EMBEDDED.glob("*-lora"))]
            raise BadFile(f"distill.source: no LoRA {self.source} comes with ditstack; {suggest(self.source, known)}")
        return lora_files.locate(str(folder), self.weight_name, None)


class LoRA(Adapter):
    """Give a source, or a preset that knows it; what is written beside a preset goes before it."""

    sampler_from: ClassVar[tuple[str, ...]] = ("preset",)

    preset: str | None = None
    """A few-step LoRA that is known, with its scale, steps, guidance and scheduler."""
    source: str
    """A .safetensors file, a folder that holds one, a hub id, or `embedded:NAME` for one that comes with ditstack."""
    weight_name: str | None = None
    """Which file, where the source holds several."""
    revision: str | None = None
    """The branch, tag or commit on the hub; None takes the newest."""
    scale: Scale = 1.0
    """What B A is multiplied by."""
    into: Literal["transformer", "transformer_2"] = "transformer"
    """Which of the pipeline's transformers it changes."""
    also: Annotated[tuple[Weights, ...], Field(strict=False)] = ()
    """Further LoRAs, such as one for a style or for the second transformer."""
    fuse: bool = True
    """Add it to the weights before they are rounded; else it runs beside them, and can be changed."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """What it was distilled for: the sampler's, where the recipe's `sampler` says nothing else."""
    guidance: Annotated[float, Field(ge=0)] | None = None
    """The same of the guidance scale."""
    scheduler: str | None = None
    """The same of the scheduler's class."""
    settings: dict[str, Any] | None = None
    """The same of the scheduler's settings."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, fields: dict[str, Any]) -> dict[str, Any]:
        name = fields.get("preset")
        if name is None:
            return fields
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"preset: unknown; {suggest(str(name), list(PRESETS))}")
        known = PRESETS[name]
        if "source" in fields:
            known = {key: value for key, value in known.items() if key not in WHERE}
        return {**known, **fields}

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset({Capability.LORAS, Capability.FLOAT_WEIGHTS})

    @property
    def sampler(self) -> dict[str, Any]:
        found = {key: getattr(self, key) for key in ("steps", "guidance", "scheduler", "settings")}
        return {key: value for key, value in found.items() if value is not None}

    @property
    def knob(self) -> Knob | None:
        return Knob("steps", scales=(1.0, 0.75, 0.5)) if self.steps else None

    @property
    def files(self) -> dict[str, Weights]:
        """Every file, under the name that peft knows it by."""
        own = {key: getattr(self, key) for key in Weights.model_fields}
        return {f"ditstack_{place}": one for place, one in enumerate((Weights(**own), *self.also))}

    def inspect(self) -> None:
        from ditstack.plugin import lora_files

        for one in self.files.values():
            lora_files.read(one.locate())

    def apply(self, pipe: Pipe) -> None:
        from ditstack.plugin import lora_probe

        self._check(pipe)
        probe, targets = lora_probe.Probe.of(pipe), {one.into for one in self.files.values()}
        plain = {name: probe.output(pipe.transformers[name]) for name in sorted(targets)}
        self._load(pipe.pipeline)
        moves = {name: probe.output(pipe.transformers[name]) - before for name, before in plain.items()}
        if idle := [text for name, move in moves.items() if (text := self._idle(name, move, plain[name]))]:
            pipe.pipeline.unload_lora_weights()
            raise BadPipeline(idle[0])
        if self.fuse:
            _fuse(pipe.pipeline)
        pipe.on_weights.append(lambda: self._compare(pipe, probe, plain, moves))

    def _check(self, pipe: Pipe) -> None:
        """Hold every file against its transformer.

        Raises:
            BadFile, BadPipeline: before anything is changed.
        """
        from ditstack.plugin import lora_files

        pipeline, kind = pipe.pipeline, type(pipe.pipeline).__name__
        if not hasattr(pipeline, "load_lora_weights"):
            raise BadPipeline(f"a {kind} cannot load a LoRA; diffusers has no loader for it")
        if carried := [name for names in pipeline.get_list_adapters().values() for name in names]:
            raise BadPipeline(
                f"the pipeline carries LoRAs already ({', '.join(carried)}); name them in the recipe's distill, after "
                "unload_lora_weights()"
            )
        for one in self.files.values():
            if one.into not in pipe.transformers:
                raise BadPipeline(f"distill.into: a {kind} has no {one.into}")
            path = one.locate()
            if missing := lora_files.check_fit(_in_their_names(pipeline, path), pipe.transformers[one.into], path):
                pipe.notes.append(f"distill lora: {len(missing)} modules of {path.name} are not here: {missing[0]} ...")

    def _load(self, pipeline: Any) -> None:
        for name, one in self.files.items():
            path = one.locate()
            more = {"load_into_transformer_2": True} if one.into == "transformer_2" else {}
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several are meant
                    pipeline.load_lora_weights(str(path), adapter_name=name, **more)
            except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
                pipeline.unload_lora_weights()
                raise BadFile(f"distill.source: {path} cannot be loaded: {_first_line(error)}") from error
        pipeline.set_adapters(list(self.files), [one.scale for one in self.files.values()])

    def _idle(self, name: str, move: Tensor, plain: Tensor) -> str | None:
        """Why these LoRAs are of no use to a transformer, if they are not."""
        said = ", ".join(one.source for one in self.files.values() if one.into == name)
        if not move.isfinite().all():
            return f"distill lora: with {said} the {name}'s output is NaN or infinite"
        if move.norm() < STILL * plain.norm():
            return f"distill lora: {said} does not move the {name}'s output; is it for this model?"
        return None

    def _compare(self, pipe: Pipe, probe: lora_probe.Probe, plain: dict[str, Tensor], moves: dict[str, Tensor]) -> None:
        """Tell whether it moves the output on the weights that run as it did on the unrounded ones.

        For a fused one there are no rounded weights without it: what rounding itself does counts against it.

        Raises:
            BadPipeline: less than half of the move is left.
        """
        from ditstack.plugin import lora_probe

        for name, move in moves.items():
            transformer: Any = pipe.transformers[name]
            now = probe.output(transformer)
            if not self.fuse:
                transformer.disable_lora()
                plain[name] = probe.output(transformer)
                transformer.enable_lora()
            left = now - plain[name]
            found, share = lora_probe.cosine(left, move), float(left @ move / move.square().sum())
            said = f"the LoRA moves the {name}'s output by {move.norm() / plain[name].norm():.1%}"
            if share < HALF:
                raise BadPipeline(f"distill lora: {said}, but on the final weights {share:.0%} of that is left")
            rest = "the same" if found > SAME else "another"
            said += f"; on the final weights in {rest} direction (cosine {found:.3f} to that on the unquantized ones)"
            cure = "" if found > SAME else f"; more bits{' or `fuse: false`' if self.fuse else ''} would keep it"
            pipe.notes.append(said + cure)


def _fuse(pipeline: Any) -> None:
    """Add every LoRA to the weights under it, and let go of it."""
    for component, names in pipeline.get_list_adapters().items():
        pipeline.fuse_lora(components=[component], adapter_names=names)
    pipeline.unload_lora_weights()


def _in_their_names(pipeline: Any, path: Path) -> dict[str, Tensor]:
    """A file's tensors as diffusers names them for this pipeline, whichever trainer wrote them."""
    try:
        found = type(pipeline).lora_state_dict(str(path))
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        kind = type(pipeline).__name__
        raise BadFile(f"distill.source: {path} is no LoRA for a {kind}: {_first_line(error)}") from error
    return found[0] if isinstance(found, tuple) else found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
