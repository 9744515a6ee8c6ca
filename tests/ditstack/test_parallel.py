"""Context parallel: two processes hold half of the tokens each, and their picture is that of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack import BadPipeline, Recipe, apply
from ditstack.testing import tiny_pipelines as tiny
from ditstack.testing.tiny_pipelines import call

P = ["a red circle"]
STEPS = 6
CACHES = {
    "svdcache": {"method": "svdcache", "interval": 2},
    "icc": {"method": "icc", "interval": 2, "rank": 4, "calibrate": "auto"},
}


def recipe(family: str, cache: dict[str, Any], folder: Path) -> Recipe:
    kept = {**cache, "factors": str(folder / f"{family}.safetensors")} if cache["method"] == "icc" else cache
    size = {"size": "16x16"} if family == "flux" else {"size": "32x32", "frames": 5}
    data = {"model": {"method": family, "device": "cpu"}, "sampler": {"steps": STEPS, **size}, "cache": kept}
    return Recipe.parse({**data, "calibration": ["a red star", "a blue ring"]})


def parallel(transformer: Any) -> None:
    from diffusers import ContextParallelConfig  # pyright: ignore[reportPrivateImportUsage]

    transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))


def one_of_two(port: int, folder: str, rank: int) -> None:
    """One process: every family, cache and order; what differs from one process is written down."""
    torch.set_num_threads(1)
    torch.accelerator.device_count = lambda: 1  # diffusers counts a rank's place on it, also where there is only a CPU
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for family in ("flux", "wan"):
        for name, cache in CACHES.items():
            want = torch.load(Path(folder) / f"{family}-{name}.pt")
            for first in ("parallel", "apply"):
                pipeline = tiny.FAMILIES[family]()
                if first == "parallel":
                    parallel(pipeline.transformer)
                stack = apply(pipeline, recipe(family, cache, Path(folder)))
                if first == "apply":
                    parallel(pipeline.transformer)
                call(pipeline, P, STEPS)
                made = call(pipeline, P, STEPS)
                error = float((made - want).norm() / want.norm())
                found[f"{family} {name} {first} first"] = [error, stack.report().steps, stack.notes]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("first", ["parallel", "apply"])
def test_a_cache_that_looks_at_the_picture_is_refused_where_ranks_hold_parts_of_it(first: str) -> None:
    from diffusers import ContextParallelConfig, ParallelConfig  # pyright: ignore[reportPrivateImportUsage]

    pipeline = tiny.flux()
    config = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=2))
    data = {"model": {"method": "flux", "device": "cpu"}, "cache": {"method": "fbcache"}}
    if first == "parallel":
        pipeline.transformer._parallel_config = config
        with pytest.raises(BadPipeline, match="ranks would not agree"):
            apply(pipeline, data)
        return
    apply(pipeline, data)
    pipeline.transformer._parallel_config = config
    with pytest.raises(BadPipeline, match="ranks would not agree"):
        call(pipeline, P, STEPS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo between processes is tried on Linux")
def test_two_processes_paint_the_picture_of_one_whichever_came_first(tmp_path: Path) -> None:
    steps = {}
    for family in ("flux", "wan"):
        for name, cache in CACHES.items():
            stack = apply(tiny.FAMILIES[family](), recipe(family, cache, tmp_path))
            torch.save(call(stack.pipeline, P, STEPS), tmp_path / f"{family}-{name}.pt")
            steps[family, name] = stack.report().steps
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(port), str(tmp_path)]
    both = [subprocess.Popen([*command, str(rank)], env=env) for rank in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(found) == 8
        for case, (error, counted, notes) in found.items():
            assert error < 1e-5, (case, error)
            assert counted == steps[tuple(case.split()[:2])], case
            assert notes == [], case


if __name__ == "__main__":
    one_of_two(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
