"""However a command ends: one sentence, the right exit code, no trace, nothing left behind."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from ditstack.cli import border, terminal
from ditstack.errors import BadFile
from ditstack.files import home

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command; returns its exit code, standard output and standard error."""
    from ditstack.cli import app

    monkeypatch.setattr("ditstack.compat.hush", lambda: None)
    monkeypatch.setattr("logging.raiseExceptions", False)

    def ditstack(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ditstack", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            app.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return ditstack


def ends(error: BaseException | None) -> int:
    """The exit code of a command that ends like this."""

    def command() -> None:
        if error is not None:
            raise error

    return border.run(command, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (BadFile("a sentence"), 2, "a sentence"),
        (OSError(28, "No space left on device", "/there/x"), 2, "/there/x: No space left on device; free some space"),
        (MemoryError(), 2, "out of memory: ask for smaller pictures"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "out of memory"),
        (KeyboardInterrupt(), 130, ""),
        (border.Stopped(signal.SIGTERM), 143, ""),
        (border.Stopped(signal.SIGHUP), 129, ""),
        (SystemExit(3), 3, ""),
        (KeyError("gains"), 1, "this is a bug in ditstack: KeyError: 'gains'; the trace is in "),
        (RecursionError("too deep"), 1, "a bug in ditstack: RecursionError"),
    ],
)
def test_every_end_has_its_code_and_its_sentence(
    error: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(error) == code
    told = capsys.readouterr().err
    assert said in " ".join(told.split())
    assert "Traceback" not in told


def test_a_fault_of_ours_leaves_its_trace_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(KeyError("gains")) == 1
    (file,) = (home() / "traces").iterdir()
    assert str(file) in "".join(capsys.readouterr().err.split("\n"))
    assert "raise error\nKeyError: 'gains'" in file.read_text()


def test_what_the_pipeline_itself_raised_is_not_called_a_bug_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert border.run(lambda: get_timestep_embedding(torch.zeros(2, 2), 4), ZeroDivisionError) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "embeddings.py of the pipeline raised AssertionError: Timesteps should be a 1d-array" in told
    assert "where the pipeline does so without ditstack too" in told


def test_a_trace_is_kept_elsewhere_where_home_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert ends(KeyError("gains")) == 1
    assert len([*tmp_path.glob("*.txt")]) == 1


def test_markup_in_a_sentence_is_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(BadFile("no recipe '[/red][bold]x:smile:'")) == 2
    assert "no recipe '[/red][bold]x:smile:'" in capsys.readouterr().err
    with terminal.telling() as tell:
        tell("[/red]")


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID"])
def test_a_rank_that_is_no_number_is_one_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "x")
    assert ends(None) == 2
    assert f"{name}: found 'x'; wanted a number" in capsys.readouterr().err


WRONG_VALUES = [
    "sampler.steps=2020-02-31", "sampler.steps=!!int abc", f"sampler.steps={'9' * 5000}", f"prompts={'[' * 3000}",
    "sampler.steps=&a [*a]", "seed=!!timestamp x", "sampler.size=99999x99999", "sampler.size=100000000000x1",
    "sampler.steps=100000000", "model=none", "sampler.scheduler=NoSuch", "sampler.settings={nonsense: 1}",
    "sampler.settings={num_train_timesteps: 0}",
    'prompts=["\\ud800"]', 'model.source="a\\0b"', "seed=2020-01-01", "sampler.guidance=.nan", "sampler.guidance=.inf",
    "a.b.c.d.e.f.g.h.i.j.k=1", f"{'x' * 5000}=1", "cache={? {a: b} : c}", "sampler.scheduler=[/red]",
    *(f"sampler.scheduler={name}" for name in (
        "FluxPipeline", "DDPMWuerstchenScheduler", "VQDiffusionScheduler", "KarrasVeScheduler", "ScoreSdeVeScheduler",
        "CMStochasticIterativeScheduler", "SchedulerMixin", "RePaintScheduler", "DDPMScheduler",
    )),
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG_VALUES, ids=range(len(WRONG_VALUES)))
def test_a_value_that_cannot_be_is_one_sentence(call: Call, tmp_path: Path, value: str) -> None:
    code, out, err = call("run", "tiny", "--prompt", "a red circle", "--out", tmp_path / "out", "--set", value)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    assert len(err) < 3000
    assert not [*tmp_path.iterdir()]


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{below}'] * 9)}]\n"
    for below, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


MAPPINGS = "cache:\n  method: svdcache\n  a: &a {k0: 1, k1: 1, k2: 1, k3: 1, k4: 1, k5: 1, k6: 1, k7: 1}\n" + "".join(
    f"  {name}: &{name} {{{', '.join(f'k{place}: *{below}' for place in range(8))}}}\n"
    for below, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        MAPPINGS,
        f"extends: tiny\n{MAPPINGS.replace('cache', 'unknown')}",
        f"extends: tiny\nunknown:\n  {BOMB.replace(chr(10), chr(10) + '  ')}",
    ],
)
def test_an_alias_bomb_is_refused_before_it_grows(call: Call, tmp_path: Path, text: str) -> None:
    (tmp_path / "bomb.yaml").write_text(text)
    code, _, err = call("show", tmp_path / "bomb.yaml")
    assert (code, "aliases written out" in " ".join(err.split())) == (2, True)


def test_a_recipe_that_is_no_plain_file_is_one_sentence(call: Call, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe", "zero", "folder"):
        code, _, err = call("show", tmp_path / f"{name}.yaml")
        assert (code, "wanted a plain file" in " ".join(err.split())) == (2, True)
    for name in ("n" * 300, f"{'n' * 300}.yaml", "~nobody-of-this-name/x.yaml", "[/red].yaml", "\udcff.yaml"):
        code, _, err = call("show", name)
        assert (code, "Traceback" in err) == (2, False)


def test_a_folder_above_that_cannot_be_entered_is_one_sentence(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    for name in ("stat", "lstat", "open", "mkdir", "scandir"):  # root enters every folder, so rights would not do
        monkeypatch.setattr(os, name, _refusing(getattr(os, name), f"{locked}/"))
    for words in (
        ("show", locked / "r.yaml"),
        ("run", "tiny", "--prompt", "x", "--out", locked / "inner" / "out"),
        ("run", "tiny", "--prompts", locked / "p.txt", "--out", tmp_path / "out"),
        ("batch", "tiny", locked / "p.txt", "--out", tmp_path / "out"),
        ("batch", "tiny", locked / "p.txt", "--out", locked / "out"),
        ("matrix", "--model", "tiny", "--out", locked / "out"),
        ("tune", "--model", "tiny", "--psnr-min", 30, "--out", locked / "t.yaml"),
        ("search", "tiny-none-native-mixed", "--out", locked / "t.yaml"),
        ("schema", "--out", locked / "s.json"),
        ("calibrate", "tiny-none-native-icc", "--out", locked / "f"),
        (
            "run",
            "tiny-none-native-icc",
            "--prompt",
            "x",
            "--out",
            tmp_path / "out",
            "--set",
            f"cache.factors={locked}/f",
        ),
    ):
        code, _, err = call(*words)
        assert (code, "Permission denied" in err) == (2, True), (words, err)


def _refusing(real: Callable[..., object], under: str) -> Callable[..., object]:
    def guarded(path: object, *words: object, **more: object) -> object:
        if not isinstance(path, int) and os.fsdecode(path).startswith(under):  # pyright: ignore[reportArgumentType]
            raise PermissionError(13, os.strerror(13), str(path))
        return real(path, *words, **more)

    return guarded


def test_a_torn_model_is_one_sentence(call: Call, tmp_path: Path) -> None:
    from ditstack.testing import tiny_pipelines as tiny

    tiny.flux().save_pretrained(tmp_path / "model")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: {{method: flux, source: {tmp_path / 'model'}, device: cpu}}\nsampler: {{size: 16x16}}\n")
    weights = tmp_path / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    encoder, vae = tmp_path / "model" / "text_encoder" / "model.safetensors", tmp_path / "model" / "vae" / "config.json"
    for path in (weights, encoder, vae, tmp_path / "model" / "model_index.json"):
        whole = path.read_bytes()
        for data in (whole[: len(whole) // 2], b"", b"\x80\x04cposix\nsystem\n."):
            path.write_bytes(data)
            code, _, err = call("run", recipe, "--prompt", "x", "--out", tmp_path / "out")
            assert (code, "Traceback" in err) == (2, False), (path.name, err)
        path.write_bytes(whole)
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_not_there_is_one_sentence(call: Call, tmp_path: Path) -> None:
    import torch

    count = torch.cuda.device_count()
    device = f"model.device=cuda:{count}" if count else "model.device=cuda"
    code, _, err = call("run", "tiny", "--prompt", "x", "--out", tmp_path / "out", "--set", device)
    assert code == 2, err
    assert "model.device: found cuda" in err


def test_a_size_of_broken_patches_is_refused_with_the_sizes_next_to_it(call: Call, tmp_path: Path) -> None:
    code, _, err = call("run", "tiny", "--prompt", "a red circle", "--out", tmp_path / "out", "--size", "65x65")
    assert code == 2
    assert "write 64x64 or" in " ".join(err.split())
    assert not [*tmp_path.iterdir()]


def test_what_a_check_left_torn_is_one_sentence(call: Call, tmp_path: Path) -> None:
    from ditstack.measure.check import file_of, unchecked
    from ditstack.recipe.recipe import Recipe

    recipe = Recipe.read("tiny-none-native-svdcache")
    file = file_of(recipe)
    file.parent.mkdir(parents=True)
    for text in ("", "[]", "{", '{"recipe": 1}'):
        file.write_text(text)
        assert "never checked" in unchecked(recipe)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_behind(
    number: int, code: int, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ditstack import paper

    before, save = signal.getsignal(number), paper.save_all

    def stop(*words: Any) -> None:
        """The folder is half written."""
        save(*words)
        assert signal.getsignal(number) != signal.SIG_DFL, "it would end this very process"
        os.kill(os.getpid(), number)

    monkeypatch.setattr(paper, "save_all", stop)
    try:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        found, _, err = call("run", "tiny", "--prompt", "a red circle", "--steps", "2", "--out", tmp_path / "out")
    finally:
        signal.signal(number, before)
    assert (found, "Traceback" in err) == (code, False)
    assert not [*tmp_path.iterdir()]
