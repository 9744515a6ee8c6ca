"""Foreign: Lightning programs that bring their own data, loaders, callbacks and limits."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from ditstack.batch.outcomes import Failed, Made
from ditstack.batch.predict import DiffusionModule, PictureWriter, PromptData
from ditstack.batch.rows.batches import seed_of
from ditstack.batch.rows.check import GoodRow
from ditstack.batch.rows.foreign import rows_in
from ditstack.batch.run import Job
from ditstack.batch.spec import BatchSpec
from ditstack.errors import BadFile, BadPipeline
from stub_batch import RECIPE, files, lines, paint, spec

ROWS: Any = [{"prompt": word, "steps": 2 + place % 2} for place, word in enumerate("abcde")]
WORDS: Any = ["f", "g"]
QUIET: dict[str, Any] = {
    "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "enable_checkpointing": False, "use_distributed_sampler": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _few_workers() -> Iterator[None]:
    """Lightning advises more workers for every DataLoader of a machine with several processors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        yield


class Mine(L.LightningDataModule):
    def predict_dataloader(self) -> Any:
        return DataLoader(ROWS, batch_size=2)


class Heard(L.Callback):
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.sizes.append(len(outputs))


def predict(data: Any, module: Any = None, **more: Any) -> list[Any]:
    found = L.Trainer(**{**QUIET, **more}).predict(module or DiffusionModule(RECIPE, paint), data)
    assert isinstance(found, list)
    return [one for batch in found for one in batch]


def test_a_data_module_of_ones_own_with_a_callback_gives_a_picture_per_row_in_their_order() -> None:
    heard = Heard()
    made = predict(Mine(), callbacks=[heard])
    assert [one.prompt for one in made] == list("abcde")
    assert [one.seed for one in made] == [seed_of(0, f"{place:06d}") for place in range(1, 6)]
    assert made[0].image.shape == (3, 16, 16)
    assert heard.sizes == [2, 2, 1]


def test_a_loader_of_dicts_makes_the_pictures_that_a_prompts_file_would() -> None:
    made = {one.id: one.image for one in predict(DataLoader(ROWS, batch_size=5))}
    one_by_one = {one.id: one.image for one in predict(DataLoader(ROWS))}
    assert {name: torch.equal(image, one_by_one[name]) for name, image in made.items()} == dict.fromkeys(made, True)


def test_a_limit_on_batches_ends_there_and_the_report_says_that_more_is_to_do(tmp_path: Path) -> None:
    assert len(predict(DataLoader(ROWS, batch_size=2), limit_predict_batches=1)) == 2
    writer = PictureWriter()
    assert len(predict(PromptData(spec(tmp_path)), limit_predict_batches=2, callbacks=[writer])) == 4
    assert writer.report is not None
    assert (writer.report.complete, writer.report.pictures) == (False, 4)
    predict(PromptData(spec(tmp_path)), callbacks=[writer])
    assert (writer.report.complete, writer.report.pictures) == (True, 5)


def test_predictions_are_returned_where_lightning_is_left_at_its_default(tmp_path: Path) -> None:
    made = predict(PromptData(spec(tmp_path)), callbacks=[PictureWriter()])
    assert [one.id for one in made] == [line["id"] for line in lines(tmp_path)]
    assert all(isinstance(one, Made) for one in made)


def test_rows_of_a_loader_are_written_too_and_a_bad_one_spoils_no_other(tmp_path: Path) -> None:
    rows: Any = [*ROWS, {"prompt": " ", "steps": 2}]
    for _ in range(2):
        made = predict(DataLoader(rows, batch_size=3), callbacks=[PictureWriter(str(tmp_path / "out"))])
        assert [isinstance(one, Failed) for one in made] == [False] * 5 + [True]
        assert [line["id"] for line in lines(tmp_path)] == [f"{place:06d}" for place in range(1, 6)]
        assert [line["error"] for line in lines(tmp_path, "errors.jsonl")] == ["no prompt, class_label or image"]
    assert len(files(tmp_path)) == 5


def test_pictures_of_a_loader_go_below_the_trainers_own_folder_where_none_is_named(tmp_path: Path) -> None:
    predict(DataLoader(ROWS), callbacks=[PictureWriter()], default_root_dir=str(tmp_path))
    assert json.loads((tmp_path / "pictures" / "report.json").read_text())["pictures"] == 5


def test_a_stream_and_several_loaders_number_their_rows_as_they_come(tmp_path: Path) -> None:
    class Stream(IterableDataset):  # pyright: ignore[reportMissingTypeArgument]
        def __iter__(self) -> Iterator[Any]:
            return iter(ROWS)

    assert [one.number for one in predict(DataLoader(Stream(), batch_size=2))] == list(range(5))
    both = [DataLoader(ROWS, batch_size=2), DataLoader(WORDS)]
    found = L.Trainer(**QUIET, callbacks=[PictureWriter(tmp_path / "out")]).predict(
        DiffusionModule(RECIPE, paint), both
    )
    assert found is not None
    numbers = [one.number for loader in found for batch in loader for one in batch]  # pyright: ignore
    assert numbers == list(range(7))


def test_a_batch_may_be_prompts_a_dict_a_list_of_dicts_or_columns() -> None:
    columns = {"prompt": ["a", "b"], "seed": torch.tensor([3, 4])}
    kinds: list[Any] = ["a", ["a", "b"], {"prompt": "a"}, [{"prompt": "a"}, {"prompt": "b"}], columns]
    found = [[one.row.prompt for one in rows_in(kind, range(9)) if isinstance(one, GoodRow)] for kind in kinds]
    assert found == [["a"], ["a", "b"], ["a"], ["a", "b"], ["a", "b"]]
    assert [one.row.seed for one in rows_in(columns, range(9)) if isinstance(one, GoodRow)] == [3, 4]


@pytest.mark.parametrize("batch", [torch.zeros(2), [], {"prompt": ["a"], "seed": [1, 2]}, 3], ids=str)
def test_a_batch_of_anything_else_is_refused_with_what_to_write(batch: Any) -> None:
    with pytest.raises(BadPipeline, match=r'wanted prompts, dicts such as {"prompt": "..."}'):
        rows_in(batch, range(9))


def test_paths_and_recipes_may_be_strings(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\nb\n")
    one = BatchSpec("tiny", str(tmp_path / "p.txt"), str(tmp_path / "out"), 2)
    predict(PromptData(one), DiffusionModule("tiny", paint), callbacks=[PictureWriter()])
    assert len(files(tmp_path)) == 2


def test_the_same_spec_serves_a_second_call_and_sees_a_prompts_file_that_changed_between(tmp_path: Path) -> None:
    one = spec(tmp_path)
    for _ in range(2):
        writer = PictureWriter()
        predict(PromptData(one), callbacks=[writer])
        assert writer.report is not None
        assert (writer.report.complete, writer.report.pictures) == (True, 5)
    (tmp_path / "out" / "pictures" / "000001.png").unlink()
    job = Job(one, make=paint)
    reports = [job.run(), job.run()]
    assert [report.written for report in reports if report] == [1, 0]
    (tmp_path / "prompts.txt").write_text("another\n")
    with pytest.raises(BadFile, match="begun with another prompts file"):
        job.run()
