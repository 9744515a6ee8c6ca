"""A long run that passed writes its figures into docs/reliability.md."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    import cases

    if cases.LONG and exitstatus == 0 and cases.FIGURES:
        cases.write_page()
