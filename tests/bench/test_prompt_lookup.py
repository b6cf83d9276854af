"""What guessing from the text would have cost: the guesses, and the sums."""

from __future__ import annotations

import pytest

from benchmarks.prompt_lookup import Costs, Setting, guesses, simulate

# Every step costs 10 and 1 more for each token after the first; copies cost 0.5.
COSTS = Costs({1: 10.0, 11: 20.0}, copy=0.5)


def test_guesses_are_what_followed_the_latest_time() -> None:
    history = [1, 2, 3, 9, 1, 2, 4, 5, 6, 1, 2]
    assert guesses(history, Setting(2, 2)) == [4, 5]
    assert guesses(history, Setting(2, 9)) == [4, 5, 6, 1, 2]
    assert guesses([1, 2, 3], Setting(2, 2)) == []
    assert guesses([1], Setting(2, 2)) == []


def test_costs_lie_on_a_line_between_measurements() -> None:
    assert COSTS.step(1) == 10.0
    assert COSTS.step(6) == 15.0
    assert COSTS.step(22) == 40.0


def test_without_a_guess_an_answer_costs_one_step_for_each_token() -> None:
    found = simulate([1, 2, 3], [4, 5, 6], Setting(2, 4), COSTS)
    assert (found.seconds, found.steps, found.guessed) == (30.0, 3, 0)


def test_right_guesses_are_written_in_one_step() -> None:
    # After 1 2 came 3 4 5 once: three guesses are right, and the step says the fourth itself.
    found = simulate([1, 2, 3, 4, 5, 9, 1, 2], [3, 4, 5, 9], Setting(2, 3), COSTS)
    assert (found.steps, found.guessed, found.right) == (1, 3, 3)
    assert found.seconds == 10.0 + 3.0 + 0.5


def test_after_a_wrong_guess_right_tokens_are_fed_again_with_the_next_step() -> None:
    found = simulate([1, 2, 3, 4, 9, 1, 2], [3, 7, 8], Setting(2, 2), COSTS)
    # A step of three tokens, taken back; then two tokens again and the new one.
    assert (found.steps, found.guessed, found.right) == (2, 2, 1)
    assert found.seconds == (12.0 + 0.5 + 0.5) + 12.0


@pytest.mark.parametrize("guess", [1, 2, 8])
def test_every_token_of_the_answer_is_written(guess: int) -> None:
    before, answer = [1, 2, 1, 2, 1, 2], [1, 2, 1, 2, 5, 1, 2, 1]
    found = simulate(before, answer, Setting(2, guess), COSTS)
    assert found.right + found.steps == len(answer)
