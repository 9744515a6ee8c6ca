"""cache-dit in a process of its own, because it patches classes. Answers each line of JSON with one.

open       model: `tiny` or `flux`
cache      full, steps, forecast, order: DBCache (F1B0) on a fixed mask of steps -> macs_ratio
paint      prompts, seeds, guidance, file: pictures into a safetensors file -> full
denoise    -> seconds, full
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ditstack.pipeline.macs import MacCounter
from rehearse import arguments, denoise, paint, pipeline

BATCH = 16


class CacheDit:
    """The other end: asks a process of its own."""

    def __init__(self, model: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.ask("open", model=model)

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """Send a job and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"do": what, **given}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"cache-dit's process ended at {what!r}; run python {__file__} by hand to see why")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Server:
    """One pipeline, and the cache that stands on it now."""

    def open(self, model: str) -> dict[str, Any]:
        self.model, self.pipe = model, pipeline(model)
        self.plain = self._macs(1)
        return {}

    def cache(self, full: list[int], steps: int, forecast: str | None = None, order: int = 1) -> dict[str, Any]:
        """`full` steps are computed, the others cached whatever the residual (its static steps mask)."""
        import cache_dit

        if hasattr(self, "steps"):
            cache_dit.disable_cache(self.pipe)
        self.steps = steps
        config = cache_dit.DBCacheConfig(
            Fn_compute_blocks=1,
            Bn_compute_blocks=0,
            max_warmup_steps=1,
            enable_separate_cfg=self.model == "tiny",
            num_inference_steps=steps,
            steps_computation_mask=[int(step in full) for step in range(steps)],
            steps_computation_policy="static",
        )
        cache_dit.enable_cache(self.pipe, cache_config=config, calibrator_config=_calibrator(forecast, order))
        return {"macs_ratio": self._macs(steps) / (steps * self.plain)}

    def paint(self, prompts: list[str], seeds: list[int], guidance: float, file: str) -> dict[str, Any]:
        places = range(0, len(prompts), BATCH)
        made = [paint(self.pipe, prompts[i : i + BATCH], seeds[i : i + BATCH], self.steps, guidance) for i in places]
        save_file({"images": torch.cat(made)}, file)
        return {"full": self._full()}

    def denoise(self) -> dict[str, Any]:
        seconds, _ = denoise(self.pipe, arguments(self.model, self.pipe, self.steps))
        return {"seconds": seconds, "full": self._full()}

    def _full(self) -> int:
        """How many steps of the last generation ran in full, as cache-dit counts them."""
        import cache_dit

        (stats,) = cache_dit.summary(self.pipe, logging=False)
        return self.steps - len(stats.cached_steps)

    def _macs(self, steps: int) -> int:
        call = arguments(self.model, self.pipe, steps)
        with MacCounter() as counter:
            denoise(self.pipe, call)
        return counter.total


def _calibrator(forecast: str | None, order: int) -> Any:
    import cache_dit

    if forecast == "taylorseer":
        return cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order)
    kinds = {None: lambda: None, "foca": cache_dit.FoCaCalibratorConfig, "dmd": cache_dit.DMDCalibratorConfig}
    return kinds[forecast]()


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    server = Server()
    for line in sys.stdin:
        job = json.loads(line)
        answer = getattr(server, job.pop("do"))(**job)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
