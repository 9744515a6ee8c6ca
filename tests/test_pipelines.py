"""Pipelines that once did nothing in silence, or crashed: counted by the benchmark's own hooks, a few of its cells."""

from typing import Any

import pytest

from pipelines import COLUMNS, called, cell, family
from results import latest
from zoo import CASES
from zoo.measured import watched

CELLS = [
    ("LTXImageToVideoPipeline", "svdcache"),  # tokens of the first frame have the timestep 0
    ("CosmosTextToWorldPipeline", "reuse"),  # its scheduler steps twice a step
    ("SanaSprintPipeline", "reuse"),  # the scheduler's last timestep is no step
    ("HunyuanDiTControlNetPipeline", "reuse"),  # empties the lists that it is given; long skips between blocks
    ("WanVACEPipeline", "reuse"),  # blocks that make hints for other blocks; takes no list of prompts
    ("Flux2KleinKVPipeline", "svdcache"),  # fewer tokens after its first step
    ("Flux2KleinKVPipeline", "icc"),
    ("CogView4Pipeline", "icc"),  # text and picture share an MLP, which runs twice a pass
    ("StableDiffusion3PAGPipeline", "icc"),  # attention runs twice a pass, with other batch sizes
    ("HunyuanVideoPipeline", "icc"),  # a mask that is summed as integers
    ("ZImagePipeline", "icc"),  # lists of tensors
    ("FluxImg2ImgPipeline", "icc"),  # handed over, with a picture among the arguments
]


def made(name: str, column: str) -> dict[str, Any]:
    pipeline, call = CASES[name]()
    with watched(pipeline) as plain:
        called(pipeline, call)
    return cell(name, family(pipeline), COLUMNS[column], plain.steps)


@pytest.mark.parametrize(("name", "column"), CELLS)
def test_what_is_planned_is_skipped_and_off_is_exact(name: str, column: str) -> None:
    found = made(name, column)
    assert found["verdict"] == "works", found["told"]
    assert found["acts"]


def test_no_cell_of_the_table_is_silent_or_a_traceback_and_every_class_of_the_benchmark_is_in_it() -> None:
    rows = latest("pipelines")["rows"]
    assert {row["name"] for row in rows} == set(CASES)
    assert len({row["name"].partition(" (")[0] for row in rows}) >= 60
    verdicts = {cell["verdict"] for row in rows for cell in row["cells"].values()}
    assert verdicts <= {"works", "noted", "refused"}
