"""Effect: whether a change of weights moves the transformer's output, and whether it still does on rounded weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ditstack.errors import BadPipeline
from ditstack.pipeline.discovery import small_call
from ditstack.pipeline.pipe import Pipe

PROMPT = "a picture"


class _SeenEnough(Exception):
    """Raised when a transformer is about to be called."""


@dataclass
class Probe:
    """One call of a transformer, as the pipeline makes it from pure noise, to be made again on other weights."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, pipe: Pipe) -> Probe:
        """Run the pipeline up to its first call of a transformer, on a small picture.

        Raises:
            BadPipeline: it cannot be run so.
        """
        seen: list[Probe] = []

        def stop(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(cls(args, kwargs))
            raise _SeenEnough

        handles = [one.register_forward_pre_hook(stop, with_kwargs=True) for one in pipe.transformers.values()]
        try:
            with torch.inference_mode():
                pipe.pipeline(**{**small_call(pipe.pipeline), **pipe.call, **pipe.ask([PROMPT]), **_pictures(pipe)})
        except _SeenEnough:
            return seen[0]
        except (ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
            kind = type(pipe.pipeline).__name__
            raise BadPipeline(f"a {kind} cannot be run to see what a LoRA changes: {error}") from error
        finally:
            pipe.clock.running = False
            for handle in handles:
                handle.remove()
        raise BadPipeline(f"{type(pipe.pipeline).__name__} calls no transformer")

    def output(self, transformer: torch.nn.Module) -> Tensor:
        """What a transformer makes of the call: one row of floats."""
        place = next(transformer.parameters()).device  # weights may have been moved since the call was heard
        args, kwargs = tree_map_only(Tensor, lambda one: one.to(place), (self.args, self.kwargs))
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            first = transformer(*args, **kwargs)[0]
        parts = first if isinstance(first, list) else [first]
        return torch.cat([part.flatten().float().cpu() for part in parts])


def _pictures(pipe: Pipe) -> dict[str, Any]:
    """A gray picture and mask for a pipeline that cannot begin without, where the recipe names none."""
    import inspect

    known = inspect.signature(type(pipe.pipeline).__call__).parameters
    if not known.keys() & {"strength", "mask_image"}:
        return {}
    side = small_call(pipe.pipeline).get("width", 256)
    gray = {"image": Image.new("RGB", (side, side), "gray"), "mask_image": Image.new("L", (side, side), "white")}
    return {name: one for name, one in gray.items() if name in known}


def cosine(move: Tensor, other: Tensor) -> float:
    """Of the angle between two moves of an output; 0 where one of them is no move."""
    sizes = move.norm() * other.norm()
    return float(move @ other / sizes) if sizes > 0 else 0.0
