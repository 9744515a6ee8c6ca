"""Ctrl-C in the middle of long work, and two commands on one output: nothing half-written, the same command goes on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ditstack.errors import BadFile, Unfinished
from ditstack.factors import Factors
from ditstack.folders import own_file, own_folder
from ditstack.testing import tiny_pipelines as tiny

Call = Callable[..., tuple[int, str]]
PROMPTS = "".join(f"a {colour} circle\n" for colour in ("red", "blue", "green", "pink", "black", "white"))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command on a tiny FLUX; its exit code and what it said."""
    from ditstack.cli import app

    monkeypatch.setattr("ditstack.compat.hush", lambda: None)
    monkeypatch.setattr("ditstack_adapters.model.flux.Flux.load", lambda self, **_: tiny.flux())
    monkeypatch.setattr("ditstack.calibration.run.PAUSE", 0)
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text(PROMPTS)

    def ditstack(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ditstack", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            app.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(stop.value.code or 0), " ".join((out + err).split())

    return ditstack


def recipe(name: str, cache: str) -> None:
    model = "model: {method: flux, device: cpu}\nsampler: {steps: 4, guidance: 3.5, size: 16x16}\n"
    Path(name).write_text(f"{model}cache: {cache}\n")


def interrupted(monkeypatch: pytest.MonkeyPatch, place: str, at: int) -> Callable[[], int]:
    """Let Ctrl-C come at the so-many-th call of a function; how often it was called since."""
    kind, _, name = place.rpartition(".")
    module, _, owner = kind.rpartition(".")
    target: Any = getattr(__import__(module, fromlist=[owner]), owner)
    real, count = getattr(target, name), [0]

    def counted(*words: Any, **more: Any) -> Any:
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt
        return real(*words, **more)

    monkeypatch.setattr(target, name, counted)
    return lambda: count[0]


def there() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_a_calibration_that_is_interrupted_leaves_what_it_gathered_and_ends_equal(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe("r.yaml", "{method: icc, interval: 2, rank: 0.25}")
    words = ("calibrate", "r.yaml", "--prompts", "p.txt", "--samples", 2, "--out")
    assert call(*words, "whole")[0] == 0
    with monkeypatch.context() as patch:
        interrupted(patch, "ditstack.measure.told.Told.count", 2)
        assert call(*words, "f")[0] == 130
    assert there() == ["f.partial", "p.txt", "r.yaml", "whole"]
    assert call(*words, "f")[0] == 0
    assert there() == ["f", "p.txt", "r.yaml", "whole"]
    resumed, whole = (Factors.load(Path(name)) for name in ("f", "whole"))
    assert resumed.conditions == whole.conditions
    assert resumed.tensors.keys() == whole.tensors.keys()
    assert [name for name, one in whole.tensors.items() if not torch.equal(one, resumed.tensors[name])] == []


def test_a_search_that_is_interrupted_keeps_its_notes_and_ends_where_it_would_have(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe("r.yaml", "{method: mixed, rank: 0}")
    words = ("search", "r.yaml", "--macs", 0.6, "--prompts", "p.txt", "--tries", 2, "--out")
    with monkeypatch.context() as patch:
        noted = interrupted(patch, "ditstack.tuning.kept.Kept.add", -1)
        assert call(*words, "whole.yaml")[0] == 0
        every = noted()
    with monkeypatch.context() as patch:
        interrupted(patch, "ditstack.tuning.kept.Kept.add", 3)
        assert call(*words, "f.yaml")[0] == 130
    assert there() == ["f.yaml.search", "p.txt", "r.yaml", "whole.yaml"]
    with monkeypatch.context() as patch:
        noted = interrupted(patch, "ditstack.tuning.kept.Kept.add", -1)
        assert call(*words, "f.yaml")[0] == 0
        assert noted() == every - 2
    assert there() == ["f.yaml", "p.txt", "r.yaml", "whole.yaml"]
    assert Path("f.yaml").read_bytes() == Path("whole.yaml").read_bytes()


def test_notes_that_are_none_are_one_sentence(call: Call) -> None:
    recipe("r.yaml", "{method: mixed, rank: 0}")
    for text in ("", "[]", "{", '{"conditions": {}, "known": 3}', '{"conditions": {}, "known": {"a": ["x"]}}'):
        Path("f.yaml.search").write_text(text)
        code, said = call("search", "r.yaml", "--prompts", "p.txt", "--out", "f.yaml")
        assert (code, "move it away" in said) == (2, True), said
        assert Path("f.yaml.search").read_text() == text


def test_a_tuning_that_is_interrupted_leaves_nothing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        assert there() == [".tiny-tuned.yaml.ditstack-lock", "p.txt"]
        raise KeyboardInterrupt

    monkeypatch.setattr("ditstack.tuning.tune.trial", stop)
    assert call("tune", "--model", "tiny", "--psnr-min", 30, "--prompts", 2)[0] == 130
    assert there() == ["p.txt"]


def test_a_matrix_that_is_interrupted_ends_its_process_and_can_be_gone_on_with(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    class Worker:
        def __init__(self, *_: object, **__: object) -> None:
            self.kill, self.wait = (lambda: ended.append("killed")), (lambda: ended.append("waited for"))

        def poll(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("ditstack.matrix.combine.subprocess.Popen", Worker)
    words = ("matrix", "--model", "tiny", "--methods", "cache=none", "--prompts", 2, "--out", "m")
    for _ in range(2):
        assert call(*words)[0] == 130
    assert ended == ["killed", "waited for"] * 2
    assert not Path("m", "matrix.json").exists()
    with own_folder(Path("m"), "matrix"):
        pass


def test_the_second_command_on_one_output_is_refused_at_its_start(call: Call) -> None:
    recipe("icc.yaml", "{method: icc, interval: 2, rank: 0.25}")
    recipe("mixed.yaml", "{method: mixed, rank: 0}")
    rows = {
        "f": ("calibrate", "icc.yaml", "--prompts", "p.txt"),
        "f.yaml": ("search", "mixed.yaml", "--prompts", "p.txt"),
        "g.yaml": ("tune", "--model", "tiny", "--psnr-min", 30, "--prompts", 2),
        "s.json": ("schema",),
    }
    for out, words in rows.items():
        with own_file(Path(out)):
            code, said = call(*words, "--out", out)
            assert (code, f"another process is writing to {out}; wait until it ends" in said) == (2, True), said
        assert not [name for name in there() if "lock" in name]


def test_what_somebody_else_wrote_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def make() -> None:
        with own_file(tmp_path / "f.yaml") as write:
            (tmp_path / "f.yaml").write_text("theirs")
            write(b"ours")

    with pytest.raises(BadFile, match=r"written by somebody else meanwhile, .* what was made is in .*f-2\.yaml"):
        make()
    assert (tmp_path / "f.yaml").read_text() == "theirs"
    assert (tmp_path / "f-2.yaml").read_text() == "ours"
    with own_file(tmp_path / "g"), pytest.raises(Unfinished), own_file(tmp_path / "g"):
        pytest.fail("the work began")


def test_factors_that_somebody_else_put_there_meanwhile_stay_and_the_same_command_goes_on(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ditstack.calibration import calibrate

    recipe("r.yaml", "{method: icc, interval: 2, rank: 0.25}")
    words = ("calibrate", "r.yaml", "--prompts", "p.txt", "--samples", 2, "--out", "f")
    real = calibrate.serve

    def meanwhile(*given: Any) -> None:
        real(*given)
        Path("f").write_text("theirs")

    with monkeypatch.context() as patch:
        patch.setattr(calibrate, "serve", meanwhile)
        code, said = call(*words)
    assert (code, "ditstack did not write it" in said) == (2, True)
    assert Path("f").read_text() == "theirs"
    Path("f").unlink()
    assert call(*words)[0] == 0
    assert Factors.load(Path("f")).tensors
    assert there() == ["f", "p.txt", "r.yaml"]


def test_a_schema_is_written_again_and_a_changed_one_is_the_users(call: Call) -> None:
    for _ in range(2):
        assert call("schema", "--out", "s.json")[0] == 0
    Path("s.json").write_text(Path("s.json").read_text().replace("cache", "cash", 1))
    assert call("schema", "--out", "s.json")[0] == 2
    assert "cash" in Path("s.json").read_text()
