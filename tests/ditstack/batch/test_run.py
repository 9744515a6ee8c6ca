"""Batch: real Lightning runs in this process, mostly with a stub that paints each item's seed."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image

from ditstack.assembly.sample import Pictures
from ditstack.batch.encode import read_note
from ditstack.batch.generate import Generator, Made, StackSampler, stand
from ditstack.batch.rows.batches import Item
from ditstack.batch.run import Job
from ditstack.batch.spec import BatchSpec
from ditstack.batch.store.disk import Disk
from ditstack.errors import BadFile, BadPipeline, Unfinished
from ditstack.recipe.recipe import Recipe
from ditstack.stack import load
from ditstack.testing.tiny_pipelines import flux
from stub_batch import RECIPE, files, lines, paint, spec


def test_every_row_has_one_picture_with_all_that_makes_it_again_inside(tmp_path: Path) -> None:
    report = Job(spec(tmp_path), make=paint).run()
    assert report is not None
    assert (report.complete, report.pictures, report.failures, report.steps) == (True, 5, 0, {"full": 6})
    assert [line["id"] for line in lines(tmp_path)] == [f"{number:06d}" for number in range(1, 6)]
    note = read_note(files(tmp_path)["000002.png"])
    assert (note["prompt"], note["recipe"]["model"]["method"]) == ("b", "flux")
    assert note["seed"] == lines(tmp_path)[1]["seed"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        ".ditstack",
        "batch.json",
        "recipe.yaml",
        "manifest.jsonl",
        "report.json",
        "batch.html",
        "pictures",
    }


def test_bad_rows_are_listed_and_strict_refuses_them_all_at_once(tmp_path: Path) -> None:
    text = "id,prompt,steps\na,x,2\nb,x,0\na,x,2\nc,x,2\n"
    with pytest.raises(BadFile, match=r"2 bad rows:\n  line 3: steps.*\n  line 4: id: 'a' was used"):
        Job(spec(tmp_path, text, "p.csv", strict=True), make=paint).run()
    assert not (tmp_path / "out").exists()
    report = Job(spec(tmp_path, text, "p.csv"), make=paint).run()
    assert report is not None
    assert (report.pictures, report.failures) == (2, 2)
    assert [(line["line"], line["id"]) for line in lines(tmp_path, "errors.jsonl")] == [(3, "b"), (4, "a")]


def test_what_is_finished_is_not_made_again_and_what_is_torn_is(tmp_path: Path) -> None:
    Job(spec(tmp_path), make=paint).run()
    before = files(tmp_path)
    (tmp_path / "out" / "pictures" / "000004.png").write_bytes(b"torn")
    asked: list[str] = []

    def counted(items: Sequence[Item]) -> Pictures:
        asked.extend(item.name for item in items)
        return paint(items)

    report = Job(spec(tmp_path, resume=True), make=counted).run()
    assert report is not None
    assert (report.written, report.pictures) == (1, 5)
    assert asked == ["000003", "000004"], "its neighbour in the batch is painted again, so that the batch is the same"
    assert files(tmp_path) == before


def test_a_call_that_finds_nothing_to_do_keeps_the_report_of_the_one_that_worked(tmp_path: Path) -> None:
    Job(spec(tmp_path), make=paint).run()
    told = (tmp_path / "out" / "report.json").read_bytes()
    report = Job(spec(tmp_path), make=paint).run()
    assert report is not None
    assert (report.written, report.pictures, report.complete) == (0, 5, True)
    assert (tmp_path / "out" / "report.json").read_bytes() == told


def test_a_video_of_a_model_that_makes_pictures_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="this model makes pictures; write --format png, jpg or webp"):
        Job(spec(tmp_path, format="mp4"), make=paint).run()
    assert not (tmp_path / "out").exists()


def test_a_changed_recipe_or_prompts_file_is_refused(tmp_path: Path) -> None:
    Job(spec(tmp_path), make=paint).run()
    other = RECIPE.with_("other", seed=1)
    with pytest.raises(BadFile, match="begun with another recipe"):
        Job(spec(tmp_path, recipe=other), make=paint).run()
    with pytest.raises(BadFile, match="begun with another prompts file"):
        Job(spec(tmp_path, "a\n"), make=paint).run()


def test_too_little_memory_halves_the_batch_and_a_bad_item_spoils_no_other(tmp_path: Path) -> None:
    sizes: list[int] = []

    def small(items: Sequence[Item]) -> Pictures:
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(item.row.prompt == "c" for item in items):
            raise BadPipeline("a picture holds NaN")
        return paint(items)

    report = Job(spec(tmp_path, "a\nb\nd\ne\nc\nf\ng\nh\n", batch_size=8), make=small).run()
    assert report is not None
    assert (report.pictures, report.failures) == (7, 1)
    assert lines(tmp_path, "errors.jsonl")[0]["error"] == "a picture holds NaN"
    assert sizes == [8, 4, 2, 2, 2, 1, 1, 2]


def test_a_run_in_which_nothing_works_ends_instead_of_failing_row_by_row(tmp_path: Path) -> None:
    def never(items: Sequence[Item]) -> Pictures:
        raise ValueError("no such scheduler")

    with pytest.raises(BadPipeline, match="the first 10 rows all failed; the last one: no such scheduler"):
        Job(spec(tmp_path, "a\n" * 50), make=never).run()


def test_auto_finds_the_largest_batch_once_and_keeps_it(tmp_path: Path) -> None:
    def small(items: Sequence[Item]) -> Pictures:
        if len(items) > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return paint(items)

    report = Job(spec(tmp_path, batch_size="auto"), make=small).run()
    assert report is not None
    assert report.batch_size == 4
    assert spec(tmp_path, batch_size="auto").size == 4


def test_auto_tries_all_steps_of_a_schedule_that_takes_no_other_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ditstack.batch.generate.MOST", 2)
    changes = ["cache.method=mixed", "cache.schedule=FSF", "cache.rank=0", "sampler.steps=3", "model.device=cpu"]
    (tmp_path / "prompts.txt").write_text("a red circle\na blue star\n")
    recipe = Recipe.read("tiny", changes)
    report = Job(BatchSpec(recipe, tmp_path / "prompts.txt", tmp_path / "out", "auto")).run()
    assert report is not None
    assert (report.complete, report.pictures, report.batch_size) == (True, 2, 2)


def test_the_first_signal_ends_after_the_running_batch_and_the_second_at_once(tmp_path: Path) -> None:
    def interrupted(items: Sequence[Item]) -> Pictures:
        if items[0].row.prompt == "c":
            os.kill(os.getpid(), signal.SIGTERM)
        return paint(items)

    job = Job(spec(tmp_path), make=interrupted)
    report = job.run()
    assert report is not None
    assert (report.complete, report.pictures, job.exit_code) == (False, 4, 143)

    def impatient(items: Sequence[Item]) -> Pictures:
        job.stopping.signal, job.stopping._at = signal.SIGINT, 0
        os.kill(os.getpid(), signal.SIGINT)
        return paint(items)

    job = Job(spec(tmp_path), make=impatient)
    with pytest.raises(Unfinished, match="stopped at once"):
        job.run()
    report = Job(spec(tmp_path), make=paint).run()
    assert report is not None
    assert (report.complete, report.pictures) == (True, 5)


def test_shards_hold_every_picture_once_through_a_stop(tmp_path: Path) -> None:
    def interrupted(items: Sequence[Item]) -> Pictures:
        if items[0].row.prompt == "e":
            os.kill(os.getpid(), signal.SIGINT)
        return paint(items)

    text = "\n".join("abcdefghij")
    Job(spec(tmp_path, text, shards=4), make=interrupted).run()
    assert len(lines(tmp_path)) == 6
    report = Job(spec(tmp_path, text, shards=4), make=paint).run()
    assert report is not None
    assert report.pictures == 10
    assert sorted(line["number"] for line in lines(tmp_path)) == list(range(10))
    found = {path.name for path in (tmp_path / "out" / "shards").iterdir()}
    assert found == {"00000000.tar", "00000001.tar", "00000002.tar"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("model") / "flux"
    flux().save_pretrained(folder)
    sampler = {"steps": 4, "size": "16x16", "guidance": 3.0}
    return Recipe.parse({"model": {"method": "flux", "source": str(folder), "device": "cpu"}, "sampler": sampler}, "m")


def test_a_picture_is_its_own_whatever_the_batch_the_order_and_the_neighbours(tmp_path: Path, model: Recipe) -> None:
    sampler = StackSampler(load(model))
    text = "id,prompt,negative_prompt,seed,guidance,width,height,steps\n" + "".join(
        f"{place},{'abcdef'[place]},,,{2.0 + place % 2},{16 + 16 * (place % 2)},16,4\n" for place in range(6)
    )
    made: list[dict[str, torch.Tensor]] = []
    for size, backwards in ((1, False), (3, False), (2, True)):
        generator = Generator(sampler)
        batches = batches_of(spec(tmp_path, text, "p.csv", recipe=model, batch_size=size), backwards)
        found = [one for items in batches for one in generator.generate(items)]
        made.append({one.item.name: one.image for one in found if isinstance(one, Made)})
        assert len(made[-1]) == 6
    for other in made[1:]:
        for name, image in made[0].items():
            assert (image - other[name]).abs().max() <= 1e-5


def batches_of(one: BatchSpec, backwards: bool) -> list[list[Item]]:
    from ditstack.batch.rows.sources import Source

    one.source = Source.find(Path(one.prompts))
    found = [batch.items for batch in one.batches(bytearray())]
    return [items[::-1] for items in reversed(found)] if backwards else found


def test_a_class_and_a_size_that_do_not_fit_the_model_fail_alone(tmp_path: Path, model: Recipe) -> None:
    text = "id,prompt,class_label,width,height\na,x,,32,16\nb,,3,32,16\nc,x,3,32,16\nd,x,,50,16\n"
    report = Job(spec(tmp_path, text, "p.csv", recipe=model, batch_size=4)).run()
    assert report is not None
    assert [line["id"] for line in lines(tmp_path)] == ["a", "c"]
    assert {line["id"]: line["error"] for line in lines(tmp_path, "errors.jsonl")} == {
        "b": "found a class_label; this model takes prompts",
        "d": "sampler.size: found 50x16; a FluxPipeline makes sides of whole 4 pixels: write 48x16 or 52x16",
    }


def test_columns_of_any_length_fit_the_manifest_and_a_jpg(tmp_path: Path) -> None:
    text = f"prompt,negative_prompt,tag\n{'ü' * 5000},{'ß' * 5000},{'x' * 100_000}\n"
    report = Job(spec(tmp_path, text, "p.csv", format="jpg"), make=paint).run()
    assert report is not None
    assert report.pictures == 1
    assert lines(tmp_path)[0]["extra"] == {"tag": "x" * 100_000}
    assert read_note(files(tmp_path)["000001.jpg"])["prompt"] == "ü" * 5000


def test_a_folder_of_pictures_goes_through_the_twin_that_starts_from_one(tmp_path: Path, model: Recipe) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    for place in range(2):
        Image.new("RGB", (20, 20), (90 * place, 40, 0)).save(pictures / f"p{place}.png")
    job = Job(BatchSpec(model, pictures, tmp_path / "out", 2, prompt="a"))
    report = job.run()
    assert report is not None
    assert (report.pictures, report.failures) == (2, 0)
    assert report.steps["full"] < 4, "a start from a picture takes fewer steps"


def test_a_lightning_user_brings_a_trainer_callbacks_and_logger_of_their_own(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    from ditstack.batch.predict import DiffusionModule, PictureWriter, PromptData

    seen: list[int] = []

    class Mine(L.Callback):
        def on_predict_batch_end(self, *arguments: Any, **named: Any) -> None:
            seen.append(len(arguments))

    logger = CSVLogger(str(tmp_path / "logs"))
    trainer = L.Trainer(
        accelerator="cpu", devices=1, callbacks=[PictureWriter(), Mine()], logger=logger,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.predict(DiffusionModule(RECIPE, paint), PromptData(spec(tmp_path)), return_predictions=False)
    assert len(seen) == 3
    assert (tmp_path / "out" / "report.json").is_file()
    assert len(lines(tmp_path)) == 5


def test_factors_are_fitted_once_and_shared_by_file(
    tmp_path: Path, model: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path / "home"))
    cache = {"method": "svdcache", "interval": 2, "predictor": "fitted", "calibrate": "auto"}
    recipe = model.with_("cached", cache=cache, calibration=["a", "b"])
    report = Job(spec(tmp_path, recipe=recipe)).run()
    assert report is not None
    assert set(report.steps) > {"full"}, "steps were forecast too"
    shared = tmp_path / "out" / "factors" / "cached.safetensors"
    before = shared.stat().st_mtime_ns
    monkeypatch.setenv("DITSTACK_HOME", str(tmp_path / "another machine"))
    stack = stand(recipe, torch.device("cpu"), Disk(tmp_path / "out"), first=False)
    assert stack.factors is not None
    assert shared.stat().st_mtime_ns == before
    assert not (tmp_path / "another machine").exists()
