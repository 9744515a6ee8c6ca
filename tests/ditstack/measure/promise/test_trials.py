"""A certification that is killed goes on, and its certificate is that of an undisturbed one in every byte."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ditstack.calibration.certificate import Certificate, certificate_file
from ditstack.measure.promise import certify as module
from ditstack.measure.promise import trials
from ditstack.measure.promise.certify import certify
from ditstack.recipe.recipe import Recipe
from ditstack.stack import Stack, load

TRIES = {"sampler": ["euler-2", "unipc-3"]}
RECIPE = Recipe.read("tiny-none-native-svdcache", ["sampler.steps=4", "cache.interval=2"]).with_(
    quality={"promise": {"psnr": 12, "share": 0.5, "confidence": 0.5, "tries": TRIES}}
)


class Killed(BaseException):
    """Ends a certification in the middle."""


@pytest.fixture(scope="module")
def made() -> Iterator[list[list[str]]]:
    """The prompts of every batch that is really made; a batch is of one, and one puts settings in order."""
    found: list[list[str]] = []
    whole = Stack.sample

    def sample(self: Stack, prompts: Any, *rest: Any, **more: Any) -> Any:
        found.append(list(prompts))
        return whole(self, prompts, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stack, "sample", sample)
        patch.setattr(module, "ORDERED_ON", 1)
        patch.setattr(trials, "BATCH", 1)
        yield found


@pytest.fixture(scope="module")
def undisturbed(made: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    """The certificate of a run that nobody killed, and how many batches it took."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITSTACK_HOME", str(tmp_path_factory.mktemp("home")))
        found = run()
    return found, len(made)


def run(bar: Callable[..., None] = lambda *_: None) -> bytes:
    certify(RECIPE, RECIPE.prompts[:2], lambda text: None, bar)
    return certificate_file(RECIPE).read_bytes()


def killed_after(parts: int) -> Callable[..., None]:
    done: list[int] = []

    def bar(*_: object) -> None:
        done.append(1)
        if len(done) == parts:
            raise Killed

    return bar


def test_a_certification_killed_after_each_part_makes_no_batch_twice_and_the_same_certificate(
    undisturbed: tuple[bytes, int], made: list[list[str]]
) -> None:
    whole, count = undisturbed
    assert count >= 5, "plain and two settings that put in order, plain and those that prove"
    before = len(made)
    for parts in range(1, count + 1):
        with pytest.raises(Killed):
            run(killed_after(parts))
        assert not certificate_file(RECIPE).exists()
        assert len(made) == before + parts
    assert run() == whole
    assert len(made) == before + count
    left = {one.name for one in certificate_file(RECIPE).parent.iterdir() if not one.name.endswith(".safetensors")}
    assert not left, "what was kept for a killed one is gone"


def test_a_batch_whose_file_is_damaged_is_made_again(undisturbed: tuple[bytes, int], made: list[list[str]]) -> None:
    before = len(made)
    with pytest.raises(Killed):
        run(killed_after(1))
    (first,) = certificate_file(RECIPE).with_suffix(".partial").glob("*.safetensors")
    first.write_bytes(first.read_bytes()[:-1])
    assert run() == undisturbed[0]
    assert len(made) == before + undisturbed[1] + 1


def test_a_certified_sampler_is_taken_whole_and_a_call_outside_says_which_one_ran(
    undisturbed: tuple[bytes, int],
) -> None:
    certificate_file(RECIPE).parent.mkdir(parents=True, exist_ok=True)
    certificate_file(RECIPE).write_bytes(undisturbed[0])
    certificate = Certificate.load(certificate_file(RECIPE))
    assert (certificate.ordered_on, len(certificate.seen)) == (1, 2)
    stack = load(RECIPE, promise=True)
    assert stack.recipe.sampler.steps == certificate.changes["sampler"]["steps"] < 4
    (one,) = stack.make(["a red circle"], [1], stack.recipe.sampler.model_copy(update={"guidance": 5.0})).each
    assert one.decision.startswith(f"in full, {stack.recipe.sampler.steps} steps")
