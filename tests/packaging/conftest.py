"""The distributions, built once from this checkout."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BACKEND = ("hatchling", "hatch_fancy_pypi_readme")


def build(kind: str, folder: Path) -> Path:
    """The wheel or the sdist of this checkout; offline where what builds it is installed."""
    alone = [] if any(importlib.util.find_spec(name) is None for name in BACKEND) else ["--no-isolation"]
    command = [sys.executable, "-m", "build", f"--{kind}", *alone, "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"))
