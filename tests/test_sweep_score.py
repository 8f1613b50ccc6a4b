"""Statistics of sweeps: intervals, luck, the race; with scores whose truth is known."""

import numpy as np
import pytest

from refmodel.sweep.race import raced, rungs
from refmodel.sweep.score import (
    grouped,
    intervals,
    largest_by_chance,
    needed,
    one_test,
    standing,
    t_values,
    together,
)


def noise(seed, questions, routes, shift=0.0):
    """Gains of routes of which the first is better by `shift` standard deviations, and the others like the unrouted model."""
    r = np.random.default_rng(seed)
    scores = r.standard_normal((questions, routes + 1))
    scores[:, 1] += shift
    return scores[:, 1:] - scores[:, :1]


def test_neighbours_are_one_and_the_mean_stays():
    gains = noise(0, 37, 5)
    assert grouped(gains, 16).shape == (3, 5)
    assert np.allclose(grouped(gains, 16).mean(axis=0), gains.mean(axis=0), rtol=1e-13)
    assert grouped(gains, 1) is gains


def test_an_interval_has_its_mean_and_narrows_with_more_questions():
    few, many = noise(1, 16, 3), noise(1, 400, 3)
    for gains in (few, many):
        low, high = intervals(gains).T
        assert ((low < gains.mean(axis=0)) & (gains.mean(axis=0) < high)).all()
    assert (np.diff(intervals(many)) < np.diff(intervals(few))).all()
    assert np.isinf(intervals(few[:1])).all()


def test_noise_is_luck_and_a_real_gain_is_none():
    assert not standing(noise(2, 32, 100)).wins
    real = standing(noise(3, 64, 100, shift=2.0))
    assert (real.best, real.wins) == (0, True)
    assert not standing(noise(3, 64, 100, shift=2.0), noise(4, 16, 100)).wins  # not on held-out questions
    assert standing(noise(3, 64, 100, shift=2.0), noise(4, 16, 100, shift=2.0)).wins


def test_one_question_settles_nothing_and_worse_routes_do_not_win():
    assert not standing(np.ones((1, 4))).wins
    assert not standing(-np.abs(noise(5, 64, 10))).wins
    assert standing(-np.abs(noise(5, 64, 10))).gain < 0


def test_the_best_by_chance_grows_with_what_was_tried():
    gains = noise(6, 32, 200)
    assert np.quantile(largest_by_chance(gains), 0.95) > np.quantile(largest_by_chance(gains[:, :2]), 0.95) + 0.5


def test_a_route_that_was_raced_is_corrected_for_all_that_left():
    gains = noise(7, 16, 4, shift=1.0)
    assert standing(gains, tried=400).corrected == min(1.0, 400 * one_test(gains[:, [standing(gains).best]]))


def test_all_signs_of_few_questions_are_tried():
    assert one_test(np.ones((10, 1))) == 2.0**-10
    assert one_test(-np.ones((10, 1))) == 1.0
    assert one_test(np.ones((1, 1))) == 1.0


def test_t_values_of_equal_gains():
    assert t_values(np.array([[0.0, 1.0, -1.0], [0.0, 1.0, -1.0]])).tolist() == [0.0, np.inf, -np.inf]


def test_how_many_questions_would_settle_it():
    assert needed(0.0, 1.0, 3.0) == np.inf
    few, many = needed(0.5, 1.0, 3.0), needed(0.25, 1.0, 3.0)
    assert many == pytest.approx(4 * few, abs=4)


def test_probes_count_alike_together():
    a, b = noise(8, 10, 6), 1000 * noise(9, 40, 6)
    gains = together([a, b])
    assert len(gains) == 50
    wanted = (a.mean(axis=0) / a.mean(axis=0).std() + b.mean(axis=0) / b.mean(axis=0).std()) / 2
    assert np.allclose(gains.mean(axis=0), wanted, rtol=1e-12)


@pytest.mark.parametrize(("questions", "group"), [(16, 1), (3, 1), (511, 16), (120, 1), (17, 16)])
def test_rungs_rise_to_all_questions(questions, group):
    marks = rungs(questions, group)
    assert marks == sorted(set(marks))
    assert marks[-1] == questions
    assert all(mark % group == 0 for mark in marks[:-1])


def test_a_race_keeps_a_route_that_is_clearly_better_and_asks_less():
    gains = noise(10, 64, 300, shift=1.5)
    race = raced(300, rungs(64), lambda columns, rung: gains[: rungs(64)[rung]][:, columns])
    assert race.order[0] == 0
    assert race.asked < 64 * 300 / 2
    assert 0.8 < race.sure <= 1
    assert race.rungs[-1].stay == len(race.order) >= 8
