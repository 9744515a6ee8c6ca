"""What is uploaded: the wheel says what it is, and the sdist holds all that its tests need."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_wheel_is_typed_and_its_page_needs_no_file_beside_it(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel)
    names = files.namelist()
    assert "ditstack/py.typed" in names
    assert "ditstack/recipes/tiny.yaml" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    (metadata,) = (message_from_bytes(files.read(name)) for name in names if name.endswith("dist-info/METADATA"))
    assert {line.split(",")[0] for line in metadata.get_all("Project-URL", [])} >= {"Homepage", "Issues", "Changelog"}
    page = str(metadata.get_payload())
    assert "](https://raw.githubusercontent.com/" in page
    assert not [part for part in page.split("](")[1:] if not part.startswith(("http", "#"))]


def test_the_sdist_holds_all_that_its_tests_need(sdist: Path, tmp_path: Path) -> None:
    """Every test can be collected, and those pass that read the tree; `scripts/lowest` runs all fast ones there."""
    with tarfile.open(sdist) as files:
        files.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(str(folder / one) for one in ("stack", "adapters"))}
    for name in [name for name in told if name.startswith("PYTEST_")]:
        told.pop(name)
    reading = ["tests/test_drawing.py", "tests/test_recipes.py", "tests/test_readme.py", "tests/ditstack/recipe"]
    quick = ["-k", "not makes_a_picture and not few_step_stack", "-m", "not slow"]
    for words in (["--collect-only", "tests"], [*quick, *reading]):
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=told)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
