"""Launching: the command lines of torchrun and SLURM, and two real processes on this machine."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from PIL import Image, ImageChops
from typer.testing import CliRunner

from ditstack.batch.run import Job, is_first
from ditstack.batch.spec import BatchSpec
from ditstack.cli.app import app
from ditstack.errors import Incompatible
from ditstack.recipe.recipe import Recipe

TORCHRUN = (
    "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint head:29500 "
    "--no-python ditstack batch tiny prompts.csv --out pictures --nodes 2 --devices 4"
)
SLURM = (
    "srun --nodes 2 --ntasks-per-node 4 --gpus-per-node 4 "
    "ditstack batch tiny prompts.csv --out pictures --nodes 2 --devices 4"
)


def job_of(line: str, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job that the command line in `line` makes, not run."""
    found: list[Job] = []
    monkeypatch.setattr(Job, "run", lambda self, console: found.append(self))
    words = shlex.split(line)
    result = CliRunner().invoke(app, [*words[words.index("ditstack") + 1 :], "--set", "model.device=cpu"])
    assert result.exit_code == 0, result.output
    return found[0]


def test_the_torchrun_line_builds_a_trainer_of_eight_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"TORCHELASTIC_RUN_ID": "1", "RANK": "5", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "8"}
    for name, value in {**known, "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "head", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    trainer = job_of(TORCHRUN, monkeypatch).trainer()
    assert isinstance(trainer.strategy, DDPStrategy)
    assert isinstance(trainer.strategy.cluster_environment, TorchElasticEnvironment)
    assert (trainer.world_size, trainer.num_nodes, trainer.num_devices) == (8, 2, 4)
    assert (trainer.global_rank, trainer.local_rank, trainer.node_rank) == (5, 1, 1)
    assert not is_first()


def test_the_slurm_line_builds_a_trainer_of_eight_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "pictures"}
    for name, value in {**known, "SLURM_JOB_ID": "77", "SLURM_PROCID": "6", "SLURM_LOCALID": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_NODEID", "1")
    monkeypatch.setenv("SLURM_NODELIST", "node[1-2]")
    trainer = job_of(SLURM, monkeypatch).trainer()
    assert isinstance(trainer.strategy, DDPStrategy)
    assert isinstance(trainer.strategy.cluster_environment, SLURMEnvironment)
    assert (trainer.world_size, trainer.num_nodes, trainer.num_devices) == (8, 2, 4)
    assert (trainer.global_rank, trainer.local_rank, trainer.node_rank) == (6, 2, 1)
    assert not is_first()


@pytest.mark.parametrize(
    "known", [{"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}, {"SLURM_STEP_NUM_TASKS": "2"}], ids=["torchrun", "srun"]
)
def test_another_number_of_processes_than_was_started_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, str]
) -> None:
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Incompatible, match=r"run started 2 processes; found --devices 1 on --nodes 1"):
        Job(BatchSpec(Recipe.read("tiny"), tmp_path / "prompts.txt", tmp_path / "out")).trainer()


@pytest.mark.parametrize("line", [TORCHRUN, SLURM])
def test_the_cookbook_shows_the_lines_that_are_tested(line: str) -> None:
    page = Path(__file__).parents[3] / "docs" / "cookbook" / "batches.md"
    assert line in " ".join(page.read_text().replace("\\\n", " ").split())


def test_a_strategy_that_lightning_does_not_know_is_refused_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match=r"batch cannot run here:\n.*nonsense"):
        Job(BatchSpec(Recipe.read("tiny"), tmp_path / "prompts.txt", tmp_path / "out"), strategy="nonsense").trainer()


def test_several_nodes_without_a_launcher_are_refused_at_once(tmp_path: Path) -> None:
    job = Job(BatchSpec(Recipe.read("tiny"), tmp_path / "prompts.txt", tmp_path / "out"), nodes=2)
    with pytest.raises(Incompatible, match="2 nodes need a launcher:\n  start it with torchrun or srun, or set MASTER"):
        job.trainer()


@pytest.mark.slow
def test_the_command_starts_its_second_process_and_both_make_every_picture_once(tmp_path: Path) -> None:
    recipe, changes = "tiny-int8-native-svdcache", ["sampler.steps=3", "model.device=cpu"]
    (tmp_path / "prompts.txt").write_text("a\nb\nc\nd\ne\n")
    command = [str(Path(sys.executable).parent / "ditstack"), "batch", recipe, str(tmp_path / "prompts.txt")]
    command += [word for change in changes for word in ("--set", change)]
    run = [*command, "--out", str(tmp_path / "out"), "--batch-size", "2", "--devices", "2"]
    done = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["complete"], report["pictures"], len(report["devices"])) == (True, 5, 2)
    assert report["weights"]
    Job(BatchSpec(Recipe.read(recipe, changes), tmp_path / "prompts.txt", tmp_path / "one", 2)).run()
    for path in (tmp_path / "one" / "pictures").iterdir():
        with Image.open(path) as one, Image.open(tmp_path / "out" / "pictures" / path.name) as two:
            assert max(high for _, high in ImageChops.difference(one, two).getextrema()) <= 1  # pyright: ignore
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["number"] for line in lines) == [0, 1, 2, 3, 4]
