"""Every law, for every method of this distribution."""

from ditstack.testing.laws import *  # noqa: F403
