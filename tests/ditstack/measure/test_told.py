"""Long work says what it does and how far it is, on a terminal and off it."""

import io

import pytest
from rich.console import Console

from ditstack.measure import told as module
from ditstack.measure.told import Told


def said(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    moments = iter([0.0, 1.0, 2.0, 9.0, 10.0, 11.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(moments)) if not terminal else None
    file = io.StringIO()
    with Told(Console(file=file, force_terminal=terminal, width=100)).shown() as told:
        told.tell("cache: fitting to 6 prompts [bold]")
        for done in range(1, 7):
            told.count("increments", done, 6)
    return file.getvalue()


def test_off_a_terminal_a_line_comes_every_few_seconds_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(monkeypatch, terminal=False).splitlines()
    assert lines[0] == "cache: fitting to 6 prompts [bold]"
    assert lines[1:] == ["increments: 4 of 6, about 6 s left", "increments: 6 of 6"]


def test_on_a_terminal_a_bar_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = said(monkeypatch, terminal=True)
    assert "6/6" in text
    assert "[bold]" in text
