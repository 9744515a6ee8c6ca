"""Pictures and videos on paper."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from ditstack.maths.fidelity import ssim
from ditstack.measure.run import Job
from ditstack.paper import grid, image, save_all, strip
from ditstack.recipe.recipe import Recipe
from ditstack.testing import tiny_pipelines as tiny

VIDEOS = torch.linspace(0, 1, 2 * 9 * 3 * 16 * 32).reshape(2, 9, 3, 16, 32)


def read(file: Path) -> tuple[np.ndarray, str]:
    """The frames of a video, and what ffmpeg says of it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(file), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, 16, 32, 3), done.stderr.decode()


def test_a_video_is_an_mp4_and_a_strip_of_its_frames(tmp_path: Path) -> None:
    paths = save_all(VIDEOS, ["a cat", "a dog"], tmp_path, fps=8)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000-a-cat.mp4",
        "000-a-cat.png",
        "001-a-dog.mp4",
        "001-a-dog.png",
    ]
    frames, said = read(paths[0].with_suffix(".mp4"))
    assert frames.shape == (9, 16, 32, 3)
    assert frames[-1].mean() > frames[0].mean()
    assert "8 fps" in said
    with Image.open(paths[0]) as sheet:
        assert sheet.size == (8 * 32, 16)


def test_a_strip_goes_from_the_first_frame_to_the_last() -> None:
    sheet, wide = strip(VIDEOS[0]), 32
    assert sheet.crop((0, 0, wide, 16)).tobytes() == image(VIDEOS[0, 0]).tobytes()
    assert sheet.crop((7 * wide, 0, 8 * wide, 16)).tobytes() == image(VIDEOS[0, -1]).tobytes()
    assert strip(VIDEOS[0, :1]).size == (wide, 16)


def test_a_grid_of_videos_shows_the_frame_in_the_middle() -> None:
    prompts = ["a cat", "a dog"]
    of_videos = grid(VIDEOS, VIDEOS.flip(0), prompts)
    assert of_videos.tobytes() == grid(VIDEOS[:, 4], VIDEOS.flip(0)[:, 4], prompts).tobytes()


def test_ssim_of_a_video_is_the_mean_over_its_frames() -> None:
    noisy = (VIDEOS + 0.05 * torch.randn(VIDEOS.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    by_frame = [sum(ssim(noisy[item], VIDEOS[item])) / 9 for item in range(2)]
    assert ssim(noisy, VIDEOS) == pytest.approx(by_frame, abs=1e-6)


def test_a_job_of_a_video_model_leaves_videos_strips_and_a_grid(tmp_path: Path) -> None:
    tiny.wan().save_pretrained(tmp_path / "wan")
    model = {"method": "wan", "source": str(tmp_path / "wan"), "device": "cpu"}
    sampler = {"steps": 2, "guidance": 2.0, "size": "32x32", "frames": 5}
    recipe = Recipe.parse({"model": model, "cache": {"method": "svdcache", "interval": 2}, "sampler": sampler})
    report = Job(recipe, ["a cat"], tmp_path / "out", compare=True).run(Console(quiet=True))
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert {"000-a-cat.mp4", "000-a-cat.png", "plain/000-a-cat.mp4", "grid.png", "report.json"} <= found
    assert report.steps == {"full": 1, "forecast": 1}
    assert report.compare is not None
    assert len(report.compare.ssim.each) == 1
