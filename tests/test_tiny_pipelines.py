# pyright: reportPrivateImportUsage=false
import pytest
import torch
from diffusers import FluxPipeline
from torch import nn

from ditstack.testing.tiny_pipelines import FAMILIES, call, flux

PROMPT = "a red fox in the snow"


@pytest.mark.parametrize("family", FAMILIES)
def test_output_is_finite_and_follows_the_seed_and_the_prompt(family: str) -> None:
    pipe = FAMILIES[family]()
    first = call(pipe, [PROMPT], steps=2)
    assert first.isfinite().all()
    assert first.std() > 0.05
    assert torch.equal(call(pipe, [PROMPT], steps=2), first)
    assert not torch.allclose(call(pipe, [PROMPT], steps=2, seed=1), first, atol=0.01)
    assert not torch.allclose(call(pipe, ["two boats"], steps=2), first, atol=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_item_alone_equals_the_item_in_a_batch(family: str) -> None:
    pipe = FAMILIES[family]()
    together = call(pipe, [PROMPT, "two boats"], steps=2)
    alone = torch.cat([call(pipe, [PROMPT], steps=2), call(pipe, ["two boats"], steps=2, seed=1)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_builds_are_equal_and_leave_the_random_state_alone(family: str) -> None:
    before = torch.random.get_rng_state()
    one, other = FAMILIES[family](), FAMILIES[family]()
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, part in one.components.items():
        if isinstance(part, nn.Module):
            baseline = other.components[name].state_dict()
            assert all(torch.equal(weight, baseline[key]) for key, weight in part.state_dict().items())


@pytest.mark.parametrize("family", ["flux", "flux_img2img", "flux_kontext", "hunyuan_video", "qwen_image"])
def test_a_second_guidance_pass_runs_when_asked(family: str) -> None:
    pipe = FAMILIES[family]()
    guided = call(pipe, [PROMPT], steps=2, true_cfg_scale=4.0)
    assert guided.isfinite().all()
    assert not torch.allclose(guided, call(pipe, [PROMPT], steps=2), atol=0.01)


def test_flux_reloads_with_identical_output(tmp_path) -> None:
    pipe = flux()
    pipe.save_pretrained(tmp_path)
    reloaded = FluxPipeline.from_pretrained(tmp_path)
    reloaded.set_progress_bar_config(disable=True)
    assert torch.equal(call(reloaded, [PROMPT], steps=2), call(pipe, [PROMPT], steps=2))
