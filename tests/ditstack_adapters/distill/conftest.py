from pathlib import Path

import pytest

from loras import Write, writer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a LoRA file of its own for every test."""
    return writer(tmp_path)
