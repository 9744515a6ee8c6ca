"""The tiny pipelines under the short name that tests of this house may use."""

from ditstack.testing.tiny_pipelines import *  # noqa: F403
from ditstack.testing.tiny_pipelines import _of_class as _of_class
