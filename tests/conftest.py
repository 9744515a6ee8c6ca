"""One thread for small models, and gpu tests that say why they are skipped."""

import logging
import os
from collections.abc import Iterator

import pytest
import torch

from ditstack.testing.tiny_pipelines.parts import TEXT_LENGTH

torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Triton decides on its first import, whoever imports it, whether its kernels run on CPU tensors
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU; torch sees none"))


@pytest.fixture(autouse=True, scope="session")
def short_prompts() -> Iterator[None]:
    """FLUX pads every prompt to 512 tokens, where a tiny pipeline's calibrations would spend nearly all their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ditstack_adapters.model.flux.Flux.call", {"max_sequence_length": TEXT_LENGTH})
        yield


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own factors."""
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def own_level() -> None:
    """What an earlier test's command line let be logged is not this one's."""
    logging.getLogger("ditstack").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True, scope="session")
def roomy() -> Iterator[None]:
    """Tests put tiny pipelines in place of large models: how much memory the machine has decides none of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ditstack.recipe.memory.room.room_here", lambda recipe: 2**40)
        yield


@pytest.fixture(autouse=True, scope="session")
def short_races() -> Iterator[None]:
    """No test looks at a clock: a stack and its baseline run once first and once second."""
    from ditstack.measure import bench

    with pytest.MonkeyPatch.context() as patch:
        race = bench.race
        patch.setattr(bench, "race", lambda *words, pairs=2, **more: race(*words, pairs=min(pairs, 2), **more))
        yield
