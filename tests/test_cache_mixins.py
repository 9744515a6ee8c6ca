"""What diffusers asks of its own caches (FirstBlock, Faster, TaylorSeer, MagCache, PAB), asked of ours.

On, the picture differs and is finite; a second call is the same; off, the output is bit-exact; nothing is kept between
calls or afterwards; taken away, the pipeline is as it was.
"""

from typing import Any

import pytest
import torch

from ditstack.testing import tiny_pipelines as tiny
from families import MODELS, PROMPTS, STEPS, stand

FAMILIES = (
    "flux",
    "wan",
    "ltx",
    "hunyuan_video",
    "cogvideo",
    "sd3",
    "qwen_image",
    "pixart",
    "chroma",
    "lumina2",
    "sana",
)
CACHES: dict[str, dict[str, Any]] = {
    "svdcache": {"interval": 2},
    "reuse": {"interval": 2},
    "icc": {"interval": 2, "rank": 0},
    "firstblock": {"threshold": 4.0},
}


def made(pipeline: Any) -> torch.Tensor:
    return tiny.call(pipeline, PROMPTS[:1], STEPS, output_type="latent")


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    return {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cache", CACHES)
def test_on_differs_off_is_exact_nothing_stays_and_it_can_be_called_again(
    family: str, cache: str, plain: dict[str, torch.Tensor]
) -> None:
    if family not in plain:
        plain[family] = made(tiny.FAMILIES[family]())
    stack = stand(family, cache={"method": cache, **CACHES[cache]})
    first = made(stack.pipeline)
    assert first.isfinite().all()
    assert not torch.equal(first, plain[family])
    assert not any(one.memories for one in stack.pipe.caches)
    assert torch.equal(made(stack.pipeline), first)
    with stack.off():
        assert torch.equal(made(stack.pipeline), plain[family])
    assert torch.equal(made(stack.pipeline), first)
    stack.remove()
    assert torch.equal(made(stack.pipeline), plain[family])
    assert not any(one.memories for one in stack.pipe.caches)
    assert not [name for one in stack.pipe.transformers.values() for name, _ in _hooked(one)]


def _hooked(transformer: torch.nn.Module) -> list[tuple[str, Any]]:
    """Modules that carry a hook of ours still."""
    found = []
    for name, module in transformer.named_modules():
        registry = vars(module).get("_diffusers_hook")
        found += [(name, one) for one in (registry.hooks if registry is not None else ()) if "ditstack" in one]
    return found


def test_every_family_of_the_mixins_is_one_of_ours() -> None:
    assert set(FAMILIES) <= set(MODELS)
