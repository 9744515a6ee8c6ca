"""Batch inference on a Lightning user's own terms: their Trainer, their callbacks, their logger.

python examples/lightning_user.py prompts.csv out/pictures
"""

import sys

import lightning as L
from lightning.pytorch.callbacks import DeviceStatsMonitor, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from ditstack import Recipe
from ditstack.batch.predict import DiffusionModule, PictureWriter, PromptData
from ditstack.batch.spec import BatchSpec

if __name__ == "__main__":
    recipe = Recipe.read("tiny", ["sampler.steps=8"])
    prompts, folder = sys.argv[1:]

    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        logger=CSVLogger("out/logs"),
        callbacks=[PictureWriter(), TQDMProgressBar(), DeviceStatsMonitor()],
    )
    data = PromptData(BatchSpec(recipe, prompts, folder, batch_size=8))
    trainer.predict(DiffusionModule(recipe), data, return_predictions=False)
    # killed or stopped: run it again, and only what is missing is made
