"""Schedules: the counts that the papers and the tables state."""

from itertools import pairwise

import pytest

from ditstack.maths.schedule import Word, ending, even, even_by_interval, graded, nearby, paper, spell, spreads


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


def test_a_graded_schedule_has_its_count_two_equal_gaps_and_then_longer_ones() -> None:
    assert graded(50, 9) == (0, 5, 10, 15, 20, 26, 33, 40, 46)
    assert graded(28, 7) == (0, 3, 6, 10, 15, 20, 25)
    assert graded(28, 3) == even(28, 3)
    assert graded(2, 9) == (0, 1)
    for steps, count in ((28, 7), (28, 14), (50, 12), (50, 25), (8, 5)):
        full = graded(steps, count)
        gaps = [after - before for before, after in pairwise(full)]
        assert gaps[0] == gaps[1]
        assert min(gaps[:-1]) == gaps[0]
    assert graded(5, 5) == graded(5, 9) == (0, 1, 2, 3, 4)
    for steps in range(1, 60):
        for count in range(1, steps + 1):
            places = graded(steps, count)
            assert len(set(places)) == count
            assert places == tuple(sorted(places))
            assert places[-1] < steps


@pytest.mark.parametrize(
    ("text", "letters", "steps"),
    [
        ("FSCS FSS", "FSCSFSS", 7),
        ("F 3(SCS)", "FSCSSCSSCS", 10),
        ("F6S", "FSSSSSS", 7),
        ("FSCS...", "FSCSFSCSF", None),
        ("F (SCF)...", "FSCFSCFSC", None),
        ("F 2(SC) F...", "FSCSCFFSCS", None),
    ],
)
def test_a_word_is_spelt_out_or_goes_on_to_the_end(text: str, letters: str, steps: int | None) -> None:
    word = Word.read(text)
    assert word.letters(len(letters)) == letters
    assert word.steps == steps


@pytest.mark.parametrize("text", ["", "SF", "FX", "F(SC)", "...", "f", "3"])
def test_a_word_that_names_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted F"):
        Word.read(text)


def test_full_steps_are_spelt_out() -> None:
    assert spell((0, 2), 4, "forecast") == ("full", "forecast", "full", "forecast")


def test_spreads_begin_with_the_default_and_have_one_count_of_rising_steps() -> None:
    for steps, count in ((50, 9), (28, 7), (20, 5), (7, 3)):
        found = spreads(steps, count)
        assert found[:2] == [graded(steps, count), even(steps, count)][: len(found)]
        assert len(set(found)) == len(found)
        for full in found:
            assert full[0] == 0
            assert len(full) == count
            assert list(full) == sorted(set(full))
            assert full[-1] < steps


def test_nearby_schedules_are_one_move_away() -> None:
    found = nearby((0, 3, 6), 8)
    assert {(0, 2, 6), (0, 4, 7), (0, 3, 7), (0, 1, 4)} <= set(found)
    assert (0, 3, 6) not in found
    assert (0, 3, 8) not in found
    assert all(full[0] == 0 and len(full) == 3 for full in found)
    assert nearby((0, 1, 2), 3) == []
