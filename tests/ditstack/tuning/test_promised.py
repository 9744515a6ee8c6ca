"""`tune --promise`: the cheapest stack that is proved to keep it is written as a recipe, beside its certificate."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ditstack.calibration.certificate import Attempt, Certificate, certificate_file
from ditstack.calibration.promised import CERTIFIED
from ditstack.cli.app import app
from ditstack.measure.promise import certify, trials
from ditstack.measure.promise.trials import Found
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from ditstack.tuning import promised

AXES = ("--methods", "quantize=none", "--methods", "attention=native", "--methods", "cache=reuse")
PROMISE = ("--set", "quality.promise.psnr=12", "--set", "quality.promise.share=0.5", "--set", "sampler.steps=4")
SURE = ("--set", "quality.promise.confidence=0.5")


def tune(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["tune", "--model", "tiny", "--promise", *words])
    return result.exit_code, " ".join((result.output + str(result.exception or "")).split())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One prompt screens, one puts in order, one proves."""
    monkeypatch.setattr(promised, "SCREENED_ON", 1)
    monkeypatch.setattr(certify, "ORDERED_ON", 1)
    monkeypatch.setattr(trials, "BATCH", 1)
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a red circle\na blue star\n")
    return tmp_path / "mine.yaml"


def test_the_recipe_that_is_written_runs_under_the_certificate_that_is_kept_beside_it(small: Path) -> None:
    code, said = tune(*AXES, "--methods", "sampler=unipc-3", *PROMISE, *SURE, "--prompts", "p.txt", "--out", str(small))
    assert code == 0, said
    assert "proved" in said
    text = small.read_text()
    assert "is proved to keep what it promises" in text
    recipe = Recipe.read(small)
    assert recipe.quality.promise is not None
    assert recipe.sampler == Recipe.read("tiny", ["sampler.steps=4"]).sampler, "what is promised stays"
    certificate = Certificate.load(certificate_file(recipe))
    assert set(certificate.changes) <= {"sampler"}
    assert certificate.macs == min(one.macs for one in certificate.tested if one.kept) < 1
    assert [one.macs for one in certificate.tested] == sorted((one.macs for one in certificate.tested), reverse=True)
    made = load(recipe, promise=True).sample(["a white star"])
    assert made.each[0].decision == CERTIFIED
    assert sum(made.steps.values()) == certificate.changes.get("sampler", {}).get("steps", 4)


def test_where_nothing_is_proved_nothing_is_written(small: Path) -> None:
    strict = ("--set", "quality.promise.psnr=99", "--methods", "cache=none", "--methods", "sampler=euler-3")
    code, said = tune(*AXES[:4], *strict, *PROMISE[2:], *SURE, "--prompts", "p.txt", "--out", str(small))
    assert code == 3, said
    assert "none of 1 stacks is proved to keep the promise" in said
    assert not small.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "recipe tiny promises nothing; write quality: {promise: {psnr: 32}}"),
        ((*PROMISE, "--psnr-min", "30"), "the promise alone; found psnr_min=30.0; leave it out, or tune for the gate"),
        ((*PROMISE, "--max-memory", "2GB"), "found --max-memory"),
        ((*PROMISE, "--prompts", "p.txt"), "wants at least 6 calibration prompts, better 9, 1 of them to put"),
        ((*PROMISE, "--methods", "cache=nonsense", "--prompts", "p.txt"), "unknown word 'nonsense' at cache"),
        ((*PROMISE, "--methods", "sampler=unipc", "--prompts", "p.txt"), "wanted a solver and its steps"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(small: Path, words: tuple[str, ...], sentence: str) -> None:
    code, said = tune(*words, "--out", str(small))
    assert code != 0
    assert sentence in said
    assert not small.exists()


def found(macs: float, low: float, name: str) -> Found:
    changes: dict[str, Any] = {} if name == "plain" else {"cache": {"method": name}}
    attempt = Attempt(changes=changes, pictures=1, broken=0, macs=macs, kept=True)
    return Found(attempt, [low], {}, {})


def test_of_a_stage_the_cheapest_that_keep_the_line_go_on_else_the_safest() -> None:
    plain = found(1.0, 1000.0, "plain")
    many = [plain, found(0.5, 50, "safe"), found(0.3, 40, "near"), found(0.2, 33, "fine"), found(0.1, 20, "broken")]
    assert [one["cache"]["method"] for one in promised._best(many, 32)] == ["fine", "near", "safe"]
    assert [one["cache"]["method"] for one in promised._best([plain, *many[4:]], 32)] == ["broken"]
    assert promised._best([plain, found(1.0, 60, "idle")], 32) == [], "as dear as nothing, and less safe"


def test_over_another_sampler_the_best_cache_alone_is_tried() -> None:
    kept = {"quantize": ["q"], "attention": [], "cache": ["a", "b"], "sampler": ["s"]}
    every = promised._combined(kept)
    assert len(every) == 2 * (3 + 2) - 1, "nothing at all is no stack"
    assert [one["cache"] for one in every if "sampler" in one] == [None, "a"] * 2
