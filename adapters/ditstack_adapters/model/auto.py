"""Any diffusers pipeline whose transformer runs lists of blocks: the trunk is found by tracing one forward."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from ditstack.plugin import Model

if TYPE_CHECKING:
    from ditstack.plugin import Pipe


class Auto(Model):
    """For families without a file of their own. What was found stands in the report's notes."""

    traced: ClassVar[bool] = True
    fps: ClassVar[int | None] = None

    def ask(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        if "class_labels" in inspect.signature(type(pipeline).__call__).parameters:
            return {"class_labels": [int(prompt) for prompt in prompts]}
        return {"prompt": prompts if len(prompts) > 1 else prompts[0]}  # some take no list

    def wrap(self, pipeline: Any) -> Pipe:
        from ditstack.plugin import Pipe, trace

        known = inspect.signature(type(pipeline).__call__).parameters
        guidance = "true_cfg_scale" if "guidance_scale" not in known else "guidance_scale"
        found = trace(pipeline, self.arguments)
        pipe = Pipe(
            pipeline, guidance, call=self.arguments, ask=functools.partial(self.asked, pipeline), trunks=found.trunks
        )
        pipe.fps = 16 if "num_frames" in known else 0
        pipe.notes.append(found.sentence())
        return pipe
