"""Ranking and successive halving on candidates whose scores are known."""
import pytest
import torch
from firstframe.samplers.anchor_search import Drafts, check_cuts, coarse, ranking, search

NAN = float("nan")


@pytest.mark.parametrize("scores, order", [
    ([1.0, 3.0, 2.0], [1, 2, 0]), ([2.0, 2.0, 2.0], [0, 1, 2]), ([NAN, 1.0, NAN, 2.0], [3, 1, 0, 2]), ([5.0], [0]), ([-float("inf"), -1.0, float("inf")], [2, 1, 0]),
])
def test_ranking(scores, order):
    assert ranking(torch.tensor(scores), "N") == order


def test_no_score_at_all_is_refused():
    with pytest.raises(ValueError, match="N got no usable score for any of 3 images: all are NaN"):
        ranking(torch.full((3,), NAN), "N")


class Run:
    """Candidates that are numbers: a step adds 1 to each, and what is scored is the number itself."""

    def __init__(self, start, scores=lambda z: z):
        self.z, self.seen, self.scored, self.scores = torch.tensor(start).view(-1, 1, 1, 1), [], [], scores

    def sample(self, rows, latents, begin, end):
        assert torch.equal(latents.flatten(), self.z[rows].flatten() + begin)
        self.seen.append((rows, begin, end))
        return latents + (end - begin), latents + 100

    def score(self, rows, latents):
        assert len(rows) == len(latents)
        self.scored.append(len(latents))
        return self.scores(latents.flatten())

    def search(self, steps, cuts, drop=0.5):
        return search(self.sample, self.score, self.z, steps, cuts, drop, "N")


def test_halving_keeps_the_best_and_counts_what_it_costs():
    run = Run([3.0, 9.0, 1.0, 7.0, 5.0, 2.0, 8.0, 4.0])
    found = run.search(10, [2, 4, 6])
    assert run.seen == [([0, 1, 2, 3, 4, 5, 6, 7], 0, 2), ([1, 3, 4, 6], 2, 4), ([1, 6], 4, 6), ([1], 6, 10)] and run.scored == [8, 4, 2]
    assert found.index == 1 and found.latent.item() == 19 and found.kept == [1] and found.calls == 16 + 8 + 4 + 4
    assert set(found.scores) == set(range(8)) and found.scores[2] == 101 and found.scores[6] == 112


def test_without_cuts_all_are_sampled_to_the_end_and_scored_there():
    run = Run([3.0, 9.0, 1.0])
    found = run.search(5, [])
    assert run.seen == [([0, 1, 2], 0, 5)] and run.scored == [3] and found.index == 1 and found.calls == 15 and found.kept == [0, 1, 2]
    assert found.scores == {0: 8.0, 1: 14.0, 2: 6.0}


def test_several_that_are_left_are_scored_at_the_end():
    run = Run([3.0, 9.0, 1.0, 7.0])
    found = run.search(6, [3])
    assert run.scored == [4, 2] and found.kept == [1, 3] and found.index == 1 and found.calls == 12 + 6


def test_one_candidate_is_sampled_in_one_go():
    run = Run([3.0])
    found = run.search(6, [2, 4])
    assert run.seen == [([0], 0, 6)] and run.scored == [1] and found.index == 0 and found.calls == 6


def test_a_share_that_is_less_than_one_drops_none_and_one_always_stays():
    run = Run([3.0, 9.0, 1.0])
    assert run.search(6, [2], drop=0.1).kept == [0, 1, 2] and Run([3.0, 9.0, 1.0]).search(6, [2], drop=0.99).kept == [1]


def test_only_the_best_drafts_are_sampled():
    run = Run([3.0, 9.0, 1.0, 7.0])
    found = search(run.sample, run.score, run.z, 10, [], 0.5, "N", Drafts(lambda rows, z: -z, 4, 2))  # drafts that mislead
    assert run.seen == [([0, 2], 0, 10)] and run.scored == [4, 2] and found.index == 0 and found.calls == 4 * 4 + 2 * 10 and found.kept == [0, 2]
    assert found.scores == {0: 13.0, 1: -9.0, 2: 11.0, 3: -7.0}
    one = search(run.sample, run.score, run.z, 10, [], 0.5, "N", Drafts(lambda rows, z: z, 4, 1))
    assert one.index == 1 and one.latent.item() == 19 and one.calls == 16 + 10
    both = search(run.sample, run.score, run.z, 10, [5], 0.5, "N", Drafts(lambda rows, z: z, 4, 2))
    assert both.index == 1 and both.calls == 16 + 10 + 5
    assert search(run.sample, run.score, run.z, 10, [], 0.5, "N", Drafts(None, 4, 4)).calls == 40  # all are finalists: no drafts


def test_a_coarse_schedule_has_both_ends():
    sigmas = torch.tensor([9.0, 7, 5, 3, 1, 0])
    assert coarse(sigmas, 2).tolist() == [9, 5, 0] and torch.equal(coarse(sigmas, 5), sigmas) and coarse(sigmas, 1).tolist() == [9, 0]


def test_nan_is_dropped_first():
    found = Run([3.0, 9.0, 1.0, 7.0], scores=lambda z: torch.where(z > 108, NAN, z)).search(6, [3])
    assert found.kept == [0, 3] and found.index == 3


@pytest.mark.parametrize("cuts", [[0], [6], [7], [3, 3], [4, 2], [1.5]])
def test_cuts_that_are_none(cuts):
    check_cuts([1, 5], 6, "N", "halve_after")
    check_cuts([], 1, "N", "halve_after")
    with pytest.raises(ValueError, match="N scores after whole steps in rising order, from 1 to 5 of 6, got .* in 'halve_after'"):
        check_cuts(cuts, 6, "N", "halve_after")
