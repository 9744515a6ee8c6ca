"""ICC's pattern: layers are full on steps of their own, exactly, at what it costs, as fitted and as a file says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ditstack import apply
from ditstack.caching.linears import find_linears
from ditstack.caching.patterns import LayerPolicy, Pattern
from ditstack.calibration.patterns import fitting
from ditstack.calibration.patterns.learning import Learning
from ditstack.calibration.statistics import LinearSurvey, seeing
from ditstack.errors import BadFile, BadPipeline, RecipeError, StaleFactors
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call

P = ["a red circle", "a blue star"]
STEPS = 6
MIXED = '"*": F (CF)...\n"*.ff": F (CCF)...\n"*.proj_mlp": F...\n'


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path))


def stand(pattern: str, steps: int = STEPS, prompts: int = 2, **fields: Any) -> Stack:
    """A tiny FLUX with ICC on it, fitted on the spot."""
    data = {
        "model": {"method": "flux", "device": "cpu"},
        "cache": {"method": "icc", "calibrate": "auto", "pattern": pattern, **fields},
        "sampler": {"steps": steps, "size": "16x16"},
        "calibration": [f"a red {one}" for one in "abcdefgh"[:prompts]],
    }
    return apply(tiny.flux(), Recipe.parse(data, "icc"))


def written(folder: Path, text: str) -> str:
    (folder / "pattern.yaml").write_text(text)
    return str(folder / "pattern.yaml")


def run(stack: Stack, steps: int = STEPS) -> Tensor:
    return call(stack.pipeline, P, steps, output_type="latent", true_cfg_scale=3.0)


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_with_every_layer_full_it_is_the_plain_pipe_at_its_cost(tmp_path: Path) -> None:
    stack = stand(written(tmp_path, '"*": F...'), rank=0)
    with stack.off():
        plain = run(stack)
    assert torch.equal(run(stack), plain)
    assert stack.pipe.passes.steps == {"full": STEPS}
    assert stack.report().macs_ratio == 1


@pytest.mark.parametrize("anchor", ["last", "line"])
def test_a_file_that_spells_the_period_is_the_period(tmp_path: Path, anchor: str) -> None:
    period = stand("period", rank=4, anchor=anchor, factors=str(tmp_path / "a"))
    spelt = stand(written(tmp_path, '"*": (FC)...'), rank=4, anchor=anchor, factors=str(tmp_path / "b"))
    assert gap(run(spelt), run(period)) < 1e-5
    assert spelt.pipe.passes.steps == period.pipe.passes.steps == {"full": 3, "calibrated": 3}
    assert spelt.pipe.passes.macs >= period.pipe.passes.macs  # a product is not shared across layers


@pytest.mark.parametrize("anchor", ["last", "line"])
def test_at_full_rank_layers_with_steps_of_their_own_are_the_plain_pipe(tmp_path: Path, anchor: str) -> None:
    stack = stand(written(tmp_path, MIXED), rank=1.0, factors_by="svd", anchor=anchor)
    with stack.off():
        plain = run(stack)
    assert gap(run(stack), plain) < 1e-4
    assert stack.pipe.passes.kinds["calibrated"] > 0


def test_every_pass_costs_the_layers_that_ran(tmp_path: Path) -> None:
    """Reuse: a pass takes what its full layers' products take beyond one in which no layer is full."""
    stack = stand(written(tmp_path, '"*": FCCFCC\n"*.ff": FCFCFC\n"*.proj_out": FCCCFC\n'), rank=0)
    survey, linears = LinearSurvey(), find_linears(stack.pipe)
    with stack.off(), seeing(linears, survey):
        call(stack.pipeline, P, 1, output_type="latent")
    run(stack)
    products = {name: survey.rows[name] * h * w for name, (h, w) in survey.shapes.items()}
    ff, out = (sum(n for name, n in products.items() if word in name) for word in (".ff.", ".proj_out"))
    macs = {record.step: record.cost.macs for record in stack.pipe.passes.records}
    full = {record.step: record.full_cost.macs for record in stack.pipe.passes.records}
    least = macs[1]
    assert ff
    assert out
    assert least == full[1] - sum(products.values())
    assert [macs[step] - least for step in range(STEPS)] == [
        full[0] - least, 0, ff, sum(products.values()) - ff - out, ff + out, 0,
    ]  # fmt: skip


def test_what_cannot_be_a_pattern_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for text, said in (
        ('"*": FSC', "holds other letters than F and C"),
        ('"*": CF', "the first of them F"),
        ("F...", "wanted lines such as"),
        ('"*.ff": F...', 'begin with a line for "*"'),
        ('"*": F...\n"*.fff": F...', r"no layer is called \*\.fff; the first of them are transformer"),
    ):
        with pytest.raises(BadFile, match=said):
            run(stand(written(tmp_path, text), rank=0))
    with pytest.raises(BadPipeline, match=r"names 3 steps for \*, and this generation takes 6"):
        run(stand(written(tmp_path, '"*": FCC'), rank=0))
    with pytest.raises(BadFile, match=r"none\.yaml"):
        stand(str(tmp_path / "none.yaml"))
    with pytest.raises(RecipeError, match="wanted period, learned, or a file whose name ends"):
        stand("learnt")
    with pytest.raises(RecipeError, match="needs a rank instead of macs"):
        stand("learned", macs=0.5)
    with pytest.raises(RecipeError, match="full_share is of pattern: learned; found pattern: period"):
        stand("period", full_share=0.5)
    with pytest.raises(RecipeError, match="needs anchor: last or line"):
        stand("learned", anchor="fitted")


def test_factors_of_one_file_do_not_serve_another(tmp_path: Path) -> None:
    file = written(tmp_path, MIXED)
    stand(file, rank=2, factors=str(tmp_path / "f"))
    stand(file, rank=2, factors=str(tmp_path / "f"), calibrate="never")
    written(tmp_path, '"*": (FC)...')
    with pytest.raises(BadFile, match="its file says otherwise now"):
        stand(file, rank=2, factors=str(tmp_path / "f"), calibrate="never")


@pytest.fixture
def _chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning without its runs: attention at the period, the MLP full half as often and moved."""

    def decided(self: Learning, fitting: Any, deciding: Any) -> Any:
        assert not set(fitting) & set(deciding)
        columns = {name: (False, True) if ".ff" in name else (True, False) for name in self.frame.saved}
        return Pattern({name: (True, *one, False, False, True) for name, one in columns.items()}), (2.0, 1.0, 3.0)

    monkeypatch.setattr(Learning, "decided", decided)


@pytest.mark.usefixtures("_chosen")
def test_a_learned_pattern_is_kept_with_its_factors_and_followed(tmp_path: Path, monkeypatch: Any) -> None:
    fields: dict[str, Any] = {"rank": 2, "factors": str(tmp_path / "f"), "prompts": 8}
    fitted = stand("learned", **fields)
    policy = fitted.pipe.policy
    assert isinstance(policy, LayerPolicy)
    columns = policy.columns(STEPS)
    assert {layer.rpartition(".")[2] for layer in columns} >= {"attn", "ff", "proj_mlp"}
    assert not any("norm" in layer for layer in columns)  # it reads one row, and always runs
    assert all(column[2] == (".ff" in layer) for layer, column in columns.items())
    assert fitted.notes == [
        "pattern: learned, layers run in full on 3 to 3 of 6 steps: "
        "+2.00 dB (+1.00 to +3.00) over a fixed pattern, in 32 final latents of prompts set aside"
    ]
    monkeypatch.setattr(fitting, "fit_patterned", None)  # what is there is read
    loaded = stand("learned", **fields, calibrate="never")
    assert torch.equal(run(fitted), run(loaded))
    assert loaded.pipe.passes.steps == {"full": 2, "calibrated": 4}
    with pytest.raises(StaleFactors, match="steps"):
        stand("learned", steps=4, **fields, calibrate="never")
    with pytest.raises(StaleFactors, match="steps"):
        run(loaded, steps=4)
