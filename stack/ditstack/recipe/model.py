"""Model: the adapter of the first stage. A family's file names its pipeline class, its blocks and its guidance."""

from __future__ import annotations

import functools
import pickle
import textwrap
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import Field, field_serializer
from safetensors import SafetensorError

from ditstack.errors import BadFile, BadPipeline
from ditstack.files import expand
from ditstack.recipe.adapter import Adapter
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.places import described

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from ditstack.pipeline.pipe import Pipe
    from ditstack.pipeline.records import PassInputs

GIVES = frozenset(
    (
        *(Capability.BLOCKS, Capability.DENSE_WEIGHTS, Capability.FLOAT_WEIGHTS, Capability.LORAS),
        *(Capability.FREE_ATTENTION, Capability.FREE_TRUNK, Capability.CACHE_HOOKS),
        *(Capability.MOVED_WHOLE, Capability.PASSING, Capability.TRACEABLE),
    )
)

ROW_ARGUMENTS = (
    *("hidden_states", "timestep", "encoder_hidden_states", "encoder_hidden_states_image", "encoder_attention_mask"),
    *("pooled_projections", "guidance", "class_labels", "added_cond_kwargs", "ofs"),
)
"""A transformer's arguments that have a row for each of its batch; positions and rotations have none."""

LOADING = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, ImportError),
    *(RecursionError, pickle.UnpicklingError, SafetensorError),
)
"""What loaders raise for a torn, pickled or foreign part of a model."""


class Judge(Protocol):
    """What a model family may bring to judge its own pictures."""

    attributes: tuple[str, ...]
    """What prompts name."""

    def prompts(self, count: int) -> list[str]:
        """Different prompts that the model was never trained on."""
        ...

    def agreement(self, images_BCHW: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        """For each picture, every attribute that its prompt names, and whether the picture agrees."""
        ...

    def features(self, images_BCHW: Tensor) -> Tensor:
        """(B, D): what the pictures show, as numbers."""
        ...


class Model(Adapter):
    """Loads a diffusers pipeline from a hub id or a folder and wraps it."""

    incidental: ClassVar[frozenset[str]] = frozenset({"device"})
    pipeline_class: ClassVar[str] = "DiffusionPipeline"
    """What loads it; DiffusionPipeline asks the files themselves."""
    transformer_class: ClassVar[str] = ""
    """What the transformer must be; empty takes any."""
    stacks: ClassVar[tuple[str, ...]] = ()
    """The transformer's ModuleLists of blocks in running order; empty finds them."""
    conditioning_modules: ClassVar[tuple[str, ...]] = ()
    """The transformer's modules whose output only its blocks read, such as the projection of the text."""
    traced: ClassVar[bool] = False
    """Whether its blocks are found by running the pipeline once: diffusers does not say what they return."""
    cut_into_rows: ClassVar[bool] = False
    """Whether the transformer may be called with some rows of its batch, and nothing but ROW_ARGUMENTS has rows."""
    takes_caches: ClassVar[bool] = True
    """Whether diffusers gives the transformer class its `enable_cache`."""
    unconditional_first: ClassVar[bool] = False
    """Whether both halves of guidance share a pass, the unconditional rows before the others."""
    guidance: ClassVar[str] = "guidance_scale"
    """The pipeline's argument that takes `sampler.guidance`."""
    call: ClassVar[dict[str, Any]] = {}
    """Further arguments of every call."""
    one_picture: ClassVar[bool] = False
    """Whether its pipelines take one picture for all prompts of a call, and repeat it themselves."""
    other_sizes: ClassVar[frozenset[str]] = frozenset()
    """Checkpoints that are not as large as the one whose sizes the family's file states."""
    fps: ClassVar[int | None] = 0
    """Frames per second of its videos; 0 where it makes pictures, None where only the loaded pipeline tells."""

    source: str = ""
    """A hub id, or a folder that `save_pretrained` wrote."""
    revision: str | None = None
    """The branch, tag or commit on the hub; None takes the newest."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of weights and activations; `auto` is bf16 on a GPU and fp32 on a CPU."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where the model runs: auto, cpu, cuda or cuda:1; `auto` takes a GPU if there is one."""
    offload: Literal["none", "model", "group"] = "none"
    """What waits in the computer's memory until a GPU needs it: nothing, whole models, or single weights."""
    arguments: dict[str, Any] = Field(default={})
    """Further arguments of every call of the pipeline; in Python also pictures and tensors, such as `image`."""

    @field_serializer("arguments", when_used="json")
    def _describe_arguments(self, arguments: dict[str, Any]) -> Any:
        return described(arguments)

    @property
    def gives(self) -> frozenset[Capability]:
        found = GIVES - {Capability.MOVED_WHOLE} if self.by_tensor else GIVES
        found = found if self.takes_caches else found - {Capability.CACHE_HOOKS}
        return found | {Capability.ROWS} if self.cut_into_rows else found

    def place(self) -> torch.device:
        """Where the model runs: what `device` says, or a GPU if there is one."""
        import torch

        auto = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(auto if self.device == "auto" else self.device)

    def torch_dtype(self) -> torch.dtype:
        """bf16 on a GPU and fp32 on a CPU, unless the recipe says otherwise."""
        import torch

        names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        auto = torch.bfloat16 if self.place().type == "cuda" else torch.float32
        return names.get(self.dtype, auto)

    def check_source(self) -> None:
        """Refuse a folder that is not there, before anything is loaded.

        Raises:
            BadFile: with the sentence.
        """
        if not self.source:
            raise BadFile("model.source: missing; give a hub id such as org/name, or a folder")
        path = expand(self.files())
        if path.is_dir() and not (path / "model_index.json").is_file():
            raise BadFile(
                f"model.source: the folder {self.source} holds no model_index.json; save_pretrained writes one"
            )
        if not path.is_dir() and (self.source.count("/") != 1 or self.source.startswith((".", "/", "~"))):
            raise BadFile(f"model.source: there is no folder {self.source}, and it is not a hub id (org/name)")

    def files(self) -> str:
        """What the loader is given: a hub id, or a folder."""
        return self.source

    def load(self, wait: bool = False) -> Any:
        """The pipeline, in its dtype and on its device.

        Args:
            wait: leave weights where they were read, until `settle`: they are to be rounded on their way to the device.

        Raises:
            BadFile: the folder is missing or torn.
        """
        import diffusers

        self.check_source()
        self._check_device()
        kind = getattr(diffusers, self.loader())
        try:
            pipeline = kind.from_pretrained(str(expand(self.source)), revision=self.revision, dtype=self.torch_dtype())
        except LOADING as error:
            raise BadFile(f"model.source: {self.source} cannot be loaded: {self._told(error)}") from error
        if self.place().type == "cpu" or self.offload == "none":
            pipeline.to("cpu" if wait else self.place())
        elif self.offload == "model":
            pipeline.enable_model_cpu_offload(device=self.place())
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _check_device(self) -> None:
        """Refuse a GPU that is not there.

        Raises:
            BadFile: with what there is.
        """
        import torch

        place, count = self.place(), torch.cuda.device_count()
        if place.type == "cuda" and (not torch.cuda.is_available() or (place.index or 0) >= count):
            raise BadFile(
                f"model.device: found {self.device}, and torch sees {count} GPUs; write cpu, auto, or one of them"
            )

    def _told(self, error: Exception) -> str:
        """The first line of a library's error; of the hub's, what to log in to and what to download."""
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
        if expand(self.source).is_dir():
            return first
        page, named = f"https://huggingface.co/{self.source}", f"hf download {self.source}"
        return (
            f"it is not complete on this computer, and the hub did not send it. With a network: {named}; "
            f"if its licence asks for it, accept that on {page} and `hf auth login` first. "
            f"The hub said: {textwrap.shorten(first, 160, placeholder=' ...')}"
        )

    def settle(self, pipeline: Any) -> None:
        """Move what waited, or begin to move weights tensor by tensor, now that those stand that will be moved."""
        if self.by_tensor:
            pipeline.enable_group_offload(onload_device=self.place(), offload_type="leaf_level", use_stream=True)
        elif self.waits:
            pipeline.to(self.place())

    @property
    def waits(self) -> bool:
        """Whether weights that are rounded first can wait for that in the computer's memory.

        One that is run to find its blocks cannot: it would take minutes where a large model waits beside its GPU.
        """
        return self.offload == "none" and self.place().type != "cpu" and not self.traced

    @property
    def by_tensor(self) -> bool:
        """Whether weights are moved tensor by tensor; a model that runs on a CPU is there already."""
        return self.offload == "group" and self.place().type != "cpu"

    def loader(self) -> str:
        """The diffusers class that loads the pipeline."""
        return self.pipeline_class

    def wrap(self, pipeline: Any) -> Pipe:
        """A pipe around a loaded pipeline of this family, whatever its task.

        Raises:
            BadPipeline: it is of another family.
        """
        from ditstack.pipeline.discovery import trace
        from ditstack.pipeline.pipe import Pipe
        from ditstack.pipeline.policy import FirstHalf

        self.check_family(pipeline)
        ask = functools.partial(self.asked, pipeline)
        trunks = trace(pipeline, self.arguments).trunks if self.traced else None
        pipe = Pipe(pipeline, self.guidance, self.stacks, {**self.call, **self.arguments}, ask, trunks=trunks)
        pipe.fps, pipe.conditioning_modules = self.fps or 0, self.conditioning_modules
        pipe.one_picture = self.one_picture
        pipe.passes.cut = ROW_ARGUMENTS if self.cut_into_rows else ()
        pipe.unguided = FirstHalf(pipe.clock, self.guidance) if self.unconditional_first else self.unguided
        return pipe

    def check_family(self, pipeline: Any) -> None:
        """Refuse a pipeline whose transformer is of another class.

        Raises:
            BadPipeline: with what was found.
        """
        import diffusers

        from ditstack.pipeline.pipe import transformers_of

        for one in transformers_of(pipeline).values():
            if self.transformer_class and not isinstance(one, getattr(diffusers, self.transformer_class)):
                found = f"{type(pipeline).__name__} runs a {type(one).__name__}"
                raise BadPipeline(f"the recipe is for a {self.transformer_class}; the {found}")

    def judge(self) -> Judge | None:
        """What can tell whether its pictures agree with their prompts, where the family brings it."""
        return None

    def asked(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        """What `ask` says, without the prompts where the recipe's own arguments hold their embeddings."""
        embedded = any(name.startswith("prompt_embeds") for name in self.arguments)
        told = self.ask(pipeline, prompts)
        return {key: value for key, value in told.items() if not (embedded and key == "prompt")}

    def unguided(self, inputs: PassInputs) -> Sequence[bool]:
        """Which rows of a pass are the unconditional half of guidance, where both halves share it."""
        return [False] * len(inputs.hidden_states)

    def picture(self, field: str, file: str, mode: str = "RGB") -> Any:
        """A picture that one of its fields names.

        Raises:
            BadFile: there is no such file.
        """
        from PIL import Image

        path = expand(file)
        if not path.is_file():
            raise BadFile(f"model.{field}: there is no file {file}")
        return Image.open(path).convert(mode)

    def ask(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        """The arguments of the pipeline's call that carry the prompts."""
        return {"prompt": prompts}
