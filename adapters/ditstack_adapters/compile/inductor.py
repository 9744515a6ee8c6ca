"""inductor: PyTorch's compiler (Ansel et al., ASPLOS 2024), without graph breaks: what it cannot follow is refused.

Blocks that are alike share compiled code, one piece for each kind of step. Hooks on whole blocks and transformers,
such as a trunk's cache, stay outside, so that a forecast step calls no compiled code at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ditstack.plugin import Adapter, Capability

if TYPE_CHECKING:
    import torch

    from ditstack.plugin import Pipe

FORMS = 64
"""Most pieces of code of one region: kinds of steps times sizes, of which two or more become one of any size."""


class Inductor(Adapter):
    """Compiles when a block first runs; later generations of the same size compile nothing."""

    neutral: ClassVar[dict[str, Any] | None] = {}
    trial: ClassVar[dict[str, Any]] = {"backend": "eager"}

    region: Literal["blocks", "whole"] = "blocks"
    """`whole` is the transformer from end to end: some more speed for much more compiling, and no cache."""
    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    """As torch.compile has them; `reduce-overhead` and `max-autotune` replay CUDA graphs."""
    backend: Literal["inductor", "aot_eager", "eager"] = "inductor"
    """`eager` and `aot_eager` follow every block and make no code: a quick look at whether a stack can be compiled."""

    @property
    def needs(self) -> frozenset[Capability]:
        facts = {Capability.BLOCKS, Capability.TRACEABLE}
        facts |= {Capability.COMPILER} if self.backend == "inductor" else set()
        facts |= {Capability.FREE_TRUNK} if self.region == "whole" else set()
        facts |= {Capability.CUDA} if self.mode != "default" else set()
        return frozenset(facts | {Capability.PASSING} if self.replays else facts)

    @property
    def gives(self) -> frozenset[Capability]:
        return frozenset({Capability.FUSED})

    @property
    def replays(self) -> bool:
        """Whether CUDA graphs are replayed: what one computes lasts until the next."""
        return self.mode in ("reduce-overhead", "max-autotune")

    def apply(self, pipe: Pipe) -> None:
        import torch

        from ditstack.plugin import put_beneath

        pipe.compiled = 0
        if self.replays:
            pipe.passes.on_begin.append(torch.compiler.cudagraph_mark_step_begin)
        region = _Region(self, pipe)
        for module in self._modules(pipe):
            put_beneath(module, region.swift)

    def _modules(self, pipe: Pipe) -> Iterator[torch.nn.Module]:
        if self.region == "whole":
            yield from pipe.transformers.values()
        else:
            yield from (block.module for blocks in pipe.blocks.values() for block in blocks)


class _Region:
    """What is compiled of one pipe: a piece for each function, whichever module it is bound to."""

    def __init__(self, adapter: Inductor, pipe: Pipe) -> None:
        self.adapter, self.pipe = adapter, pipe
        self._made: dict[Any, Callable[..., Any]] = {}

    def swift(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The same forward, compiled, unless a pass must be seen as it runs."""
        from torch._dynamo.exc import TorchDynamoException
        from torch._dynamo.utils import counters

        from ditstack.plugin import BadPipeline

        function, owner = getattr(forward, "__func__", forward), getattr(forward, "__self__", None)
        bound = () if owner is None else (owner,)
        compiled, pipe = self._compiled(function), self.pipe
        # a graph's next replay, such as guidance's second pass, writes where this one did; blocks' are read at once
        keeps = self.adapter.replays and self.adapter.region == "whole"

        def run(*args: Any, **kwargs: Any) -> Any:
            if pipe.as_written:
                return forward(*args, **kwargs)
            before = counters["stats"]["unique_graphs"]
            try:
                out = compiled(*bound, *args, **kwargs)
            except TorchDynamoException as error:
                raise BadPipeline(
                    f"compile inductor cannot follow a {type(owner).__name__} from end to end: {_first_line(error)}; "
                    "take off the hooks and print calls inside its blocks, or write `compile: none`"
                ) from error
            pipe.compiled = (pipe.compiled or 0) + counters["stats"]["unique_graphs"] - before
            return _copied(out) if keeps else out

        return run

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        from ditstack.plugin import compile_apart

        if function not in self._made:
            mode = {} if self.adapter.mode == "default" else {"mode": self.adapter.mode}
            # neither another pipe's code nor its count of recompilations is shared
            how = {"fullgraph": True, "backend": self.adapter.backend, **mode}
            self._made[function] = compile_apart(function, FORMS, **how)
        return self._made[function]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _copied(out: Any) -> Any:
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    return tree_map_only(Tensor, Tensor.clone, out)
