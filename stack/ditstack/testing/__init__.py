"""Testing: the laws that every method inherits, and tiny pipelines of the families, for any distribution's tests."""

import pytest

pytest.register_assert_rewrite("ditstack.testing.laws")
