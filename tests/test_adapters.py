"""The laws, for every method of this house; and what holds of pipes whatever stands on them."""

import pytest

from ditstack.errors import DitstackError
from ditstack.pipeline.pipe import Pipe
from ditstack.testing.capabilities import HELD
from ditstack.testing.laws import *  # noqa: F403
from families import MODELS, stand


def test_a_pipeline_without_a_transformer_is_refused() -> None:
    with pytest.raises(DitstackError, match="has no transformer"):
        Pipe(object())


@pytest.mark.parametrize("family", MODELS)
def test_what_a_model_gives_is_so(family: str) -> None:
    stack = stand(family)
    given = stack.recipe.model.gives
    assert not [one.sentence for one in HELD if one in given and not HELD[one](stack.pipe)]
