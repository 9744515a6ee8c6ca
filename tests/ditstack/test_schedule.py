"""Schedules: the counts that the papers and the tables state."""

import pytest

from ditstack.schedule import ending, even, even_by_interval, paper


@pytest.mark.parametrize(("interval", "full"), [(5, 12), (7, 9), (8, 8)])
def test_the_papers_schedule_gives_its_published_number_of_full_steps(interval: int, full: int) -> None:
    assert len(paper(50, interval, 3)) == full


def test_the_papers_schedule_begins_with_its_dense_steps() -> None:
    assert paper(50, 5, 3)[:4] == (0, 1, 2, 7)
    assert paper(50, 5, 1)[:3] == (0, 5, 10)


def test_an_even_schedule_begins_with_zero_and_has_equal_gaps() -> None:
    assert even(28, 7) == (0, 4, 8, 12, 16, 20, 24)
    gaps = [b - a for a, b in zip(even(50, 9), even(50, 9)[1:], strict=False)]
    assert set(gaps) == {5, 6}


def test_interval_one_runs_every_step() -> None:
    assert even_by_interval(7, 1) == paper(7, 1, 1) == tuple(range(7))


def test_fewer_steps_than_asked_for_run_all() -> None:
    assert even(3, 9) == (0, 1, 2)
    assert ending((0, 4), 6, 2) == (0, 4, 5)
