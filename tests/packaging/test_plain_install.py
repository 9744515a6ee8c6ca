"""The wheel without any extra, in an empty folder: the main job is done; what cannot be is refused in a sentence."""

import json
import os
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from subprocess import run as execute

import pytest

pytestmark = pytest.mark.slow

EXTRAS = (
    *("torchmetrics", "lightning", "lightning_utilities", "matplotlib", "jinja2", "pyarrow", "imageio_ffmpeg"),
    *("bitsandbytes", "sageattention", "triton"),
)
Call = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and what it requires, where no extra can be imported."""
    folder = tmp_path_factory.mktemp("plain") / "venv"
    venv.create(folder, symlinks=os.name != "nt")
    (site,) = folder.glob("Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(shared))
    (site / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS}))\n")
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture
def call(plain: Path, tmp_path: Path) -> Call:
    told = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    told |= {"DITSTACK_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    empty = tmp_path / "empty"
    empty.mkdir()

    def ditstack(*words: str) -> CompletedProcess[str]:
        return execute([plain, "-m", "ditstack", *words], capture_output=True, text=True, cwd=empty, env=told)

    return ditstack


def test_a_run_with_a_comparison_leaves_pictures_and_every_figure(call: Call, tmp_path: Path) -> None:
    done = call("run", "tiny-int8-native-svdcache", "--compare", "--steps", "6", "--out", "out")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "empty" / "out"
    assert (out / "grid.png").is_file()
    assert len(list(out.glob("0*.png"))) == 6
    assert 0.5 < json.loads((out / "report.json").read_text())["compare"]["ssim"]["mean"] <= 1


def test_a_check_says_what_it_leaves_out(call: Call) -> None:
    given = ("quality.psnr_min=5", "quality.psnr_p5_min=5", "quality.ssim_min=0.1", "sampler.steps=6")
    gate = [word for one in given for word in ("--set", one)]
    done = call("check", "tiny-int8-native-svdcache", "--prompts", "2", *gate)
    assert done.returncode == 0, done.stderr
    assert "ssim_min 0.1: found" in done.stdout
    assert "MS-SSIM left out: needs the package torchmetrics: pip install 'ditstack[quality]'" in done.stderr


def test_the_shelf_a_method_and_the_schema_are_shown(call: Call) -> None:
    shelf = call("recipes")
    assert shelf.returncode == 0, shelf.stderr
    assert "tiny-int8-native-svdcache" in shelf.stdout
    assert "arXiv 2601.07396" in call("show", "svdcache").stdout
    assert json.loads(call("schema").stdout)["properties"]
    assert call("doctor").returncode == 0


REFUSED = [
    (("batch", "tiny", "p.txt", "--out", "out"), "it needs the package lightning: pip install 'ditstack[lightning]'"),
    (("matrix", "--model", "tiny", "--out", "out"), "it needs the package jinja2: pip install 'ditstack[report]'"),
    (("run", "tiny-nf4-native-svdcache"), "pip install 'ditstack[bitsandbytes]'"),
    (("run", "wan", "--prompt", "a cat"), "needs the package imageio_ffmpeg: pip install 'ditstack[video]'"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words[0] + " " + words[1] for words, _ in REFUSED])
def test_what_needs_an_extra_says_which_before_it_begins(
    call: Call, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = call(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list((tmp_path / "empty").iterdir())
