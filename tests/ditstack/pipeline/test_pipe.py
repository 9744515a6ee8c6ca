"""What a pipe lets stand aside or in for something comes back, however what was inside ended."""

import pytest
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from ditstack.pipeline.pipe import Pipe
from ditstack.testing import tiny_pipelines as tiny


def test_another_scheduler_samples_inside_alone_also_where_what_is_inside_fails() -> None:
    pipe = Pipe(tiny.flux())
    own, other = pipe.pipeline.scheduler, DPMSolverMultistepScheduler()
    with pipe.sampled_by(other):
        assert pipe.pipeline.scheduler is other
    assert pipe.pipeline.scheduler is own
    with pytest.raises(ZeroDivisionError), pipe.sampled_by(other):
        raise ZeroDivisionError
    assert pipe.pipeline.scheduler is own
