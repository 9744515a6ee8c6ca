"""A promise is proved on as many pictures as it wants, found at the cheapest setting, and refused for what differs."""

from collections.abc import Callable

import pytest

from ditstack import apply, load
from ditstack.calibration.certificate import Attempt, Certificate, certificate_file, certified
from ditstack.calibration.promised import CERTIFIED, LATE
from ditstack.errors import BadFile, RecipeError, StaleFactors
from ditstack.measure.promise.certify import certify, pictures_wanted
from ditstack.measure.promise.coverage import Coverage, coverage
from ditstack.measure.promise.ladder import settings
from ditstack.recipe.recipe import Recipe
from ditstack.recipe.sections import Promise

CHANGES = [
    "sampler.steps=8", "quality.promise.psnr=24", "quality.promise.share=0.5", "quality.promise.confidence=0.9",
]  # fmt: skip


def told(_: str) -> None:
    return None


def recipe(*changes: str) -> Recipe:
    return Recipe.read("tiny-none-native-svdcache", [*CHANGES, *changes])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """On four prompts, none of which may be broken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITSTACK_HOME", str(tmp_path_factory.mktemp("home")))
        found = certify(recipe(), recipe().prompts[:4], told)
    assert found is not None
    return found


def test_settings_are_the_caches_knob_the_safest_first() -> None:
    assert [one["cache"]["interval"] for one in settings(recipe())] == [2, 3, 4, 5, 6, 8]
    own, *fewer = settings(Recipe.read("tiny"))
    assert own == {}
    assert {one["sampler"]["steps"] for one in fewer} == {25, 22, 17, 14, 10, 7, 6}
    assert {one["sampler"].get("scheduler", "")[:5] for one in fewer} == {"", "DPMSo", "UniPC"}


def test_the_cheapest_setting_that_is_proved_is_certified_and_the_first_that_is_not_ends_it(
    certificate: Certificate,
) -> None:
    assert pictures_wanted(certificate.promise) == (4, 7)
    *kept, last = certificate.tested
    assert kept, "the safest setting keeps 24 dB"
    assert all(one.kept and one.broken == 0 and one.pictures == 4 for one in kept)
    assert not last.kept
    assert last.broken > 0
    assert certificate.changes == kept[-1].changes
    assert certificate.macs == kept[-1].macs < 0.8
    assert [one.macs for one in certificate.tested] == sorted((one.macs for one in certificate.tested), reverse=True)
    assert certificate.proved == pytest.approx(0.1 ** (1 / 4))
    assert all(len(each) == 4 for each in certificate.scores.values())
    assert LATE in certificate.scores


def test_too_few_prompts_are_refused_with_the_number_that_the_promise_wants() -> None:
    with pytest.raises(BadFile, match=r"wants at least 4 calibration prompts, better 7.*found 3"):
        certify(recipe(), recipe().prompts[:3], told)


def test_a_promise_that_nothing_keeps_leaves_no_certificate() -> None:
    strict = recipe("quality.promise.psnr=99")
    assert certify(strict, strict.prompts[:4], told) is None
    with pytest.raises(BadFile, match="there is no certificate"):
        certified(strict)
    with pytest.raises(BadFile, match="promises nothing"):
        certified(Recipe.read("tiny"))


def test_a_stack_takes_the_certified_setting_and_every_picture_says_so(certificate: Certificate) -> None:
    certificate.save(certificate_file(recipe()))
    stack = load(recipe(), promise=True)
    assert stack.recipe.resolved()["cache"]["interval"] == certificate.changes["cache"]["interval"]
    made = stack.sample(list(recipe().prompts[:2]))
    assert [one.decision for one in made.each] == [CERTIFIED] * 2
    assert sum(one.macs for one in made.each) == made.macs
    assert all(one.steps == made.steps for one in made.each)
    assert made.each[0].scores.keys() == certificate.scores.keys()
    assert any(note.startswith("promise: cache interval") for note in stack.notes)
    assert stack.report(made).each[1]["decision"] == CERTIFIED


def test_a_call_outside_of_the_certificate_runs_in_full_and_says_why(certificate: Certificate) -> None:
    certificate.save(certificate_file(recipe()))
    stack = load(recipe(), promise=True)
    other = stack.recipe.sampler.model_copy(update={"guidance": 5.0})
    (one,) = stack.make(["a red circle"], [1], other).each
    assert one.steps == {"full": 8}
    assert one.decision == "in full: guidance 5.0 (certified: 3.0)"
    (one,) = stack.sample(["a red circle"], [1], negative_prompt="a blue star").each
    assert one.decision == "in full: negative_prompt"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["cache.order=2"], r"cache: order was 1, is 2"),
        (["sampler.steps=9"], r"sampler\.steps: was 8, is 9"),
        (["quantize=torchao"], "quantize: was nothing"),
        (["quality.promise.psnr=25"], "another promise"),
    ],
)
def test_a_certificate_of_something_else_is_refused(certificate: Certificate, changes: list[str], named: str) -> None:
    certificate.save(certificate_file(recipe()))
    with pytest.raises(StaleFactors, match=named):
        load(recipe(*changes), promise=True)


def test_a_certificate_of_other_weights_is_refused_and_the_pipeline_stays_as_it_was(
    certificate: Certificate,
) -> None:
    certificate.save(certificate_file(recipe()))
    pipeline = load("tiny").pipeline
    next(pipeline.transformer.parameters()).data.flatten()[0] += 1e-3
    with pytest.raises(StaleFactors, match="does not fit what runs, so nothing is promised"):
        apply(pipeline, recipe(), promise=True)
    assert not hasattr(pipeline.transformer, "ditstack")


def test_a_damaged_certificate_and_one_that_is_none_are_refused(certificate: Certificate) -> None:
    path = certificate_file(recipe())
    certificate.save(path)
    assert Certificate.load(path) == certificate
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadFile, match="damaged"):
        Certificate.load(path)


def test_a_check_verifies_fresh_prompts_and_refuses_those_of_the_certificate(certificate: Certificate) -> None:
    certificate.save(certificate_file(recipe()))
    with pytest.raises(BadFile, match="all 4 prompts were used by the certificate"):
        coverage(recipe(), recipe().prompts[:4], told)
    found = coverage(recipe(), recipe().prompts, told)
    assert found.pictures == 2
    assert found.ok


def test_fresh_pictures_refute_a_promise_only_where_chance_cannot_explain_them(certificate: Certificate) -> None:
    promised = certificate.model_copy(update={"promise": Promise(psnr=32, share=0.98, confidence=0.95)})
    assert Coverage(promised, 100, 5).ok  # P(at least 5 of 100 broken) = .051
    wrong = Coverage(promised, 100, 6)
    assert not wrong.ok
    assert "refutes the promise (p = 0.015)" in str(wrong)


@pytest.fixture
def scored(certificate: Certificate) -> Callable[[float], str]:
    """What is told of 32 pictures whose brightness differs by so much from 64 of calibration."""
    known = certificate.model_copy(update={"scores": {"red": [place / 64 for place in range(64)]}})
    return lambda shift: known.drift({"red": [place / 32 + shift for place in range(32)]})


def test_prompts_of_another_kind_are_told_of(scored: Callable[[float], str], certificate: Certificate) -> None:
    assert scored(0) == ""
    assert "the pictures differ from those of calibration in red (p = " in scored(0.5)
    assert certificate.drift({"red": [5.0] * 3}) == "", "three pictures tell nothing"


def test_a_promise_that_cannot_be_is_refused_where_it_is_written() -> None:
    with pytest.raises(RecipeError, match=r"quality\.promise\.share: found 1"):
        Recipe.read("tiny", ["quality.promise.psnr=32", "quality.promise.share=1.0"])
    with pytest.raises(RecipeError, match=r"quality\.promise\.psnr: found|quality\.promise\.psnr"):
        Recipe.read("tiny", ["quality.promise.share=0.9"])


def test_a_test_says_what_was_found() -> None:
    one = Attempt(changes={"cache": {"interval": 4}}, pictures=236, broken=1, macs=0.263, kept=True)
    assert str(one) == "cache interval 4: 1 of 236 broken, 0.26 of the MACs: proved"
