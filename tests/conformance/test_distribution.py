"""Speculative sampling as a distribution: right samplers pass, named mistakes are found, false alarms are rarer than 1e-9."""

from math import exp

import numpy as np
import pytest

from conformance.distribution import FALSE_ALARM, DistributionError, _divergence, check_speculative_sampler, deviations
from conformance.pitfalls import Setting, pitfalls_for
from implementations.numpy.decoding import sample
from oracle import METHODS

FLOAT64 = Setting("float64", np.dtype(np.float64), {})
# Wrong distributions; the other pitfalls draw fairly from other numbers, or end the row otherwise.
MISTAKES = {
    "residual-not-clipped", "residual-not-renormalised", "accepted-where-above", "bonus-token-from-the-draft", "residual-is-target",
    "residual-of-absolute-differences", "bonus-token-from-the-row-before", "rejected-token-from-last-row", "target-row-one-ahead",
    "rejecting-number-used-again", "ratio-upside-down", "accepted-where-most-likely", "last-token-most-likely",
}  # fmt: skip


def with_mistake(name):
    pitfall = next(pitfall for pitfall in pitfalls_for("speculative_sampling") if pitfall.name == name)

    def sampler(*arrays):
        given = dict(zip(("p", "q", "draft", "u", "u_sample"), arrays, strict=True))
        outputs = pitfall.run(given, FLOAT64)
        return METHODS["speculative_sampling"](**given) if outputs is None else outputs[0]

    return sampler


@pytest.mark.parametrize("seed", range(3))
def test_the_method_itself_draws_as_it_should(seed):
    check_speculative_sampler(METHODS["speculative_sampling"], seed=seed, sequences=40_000)


def test_an_implementation_and_other_sizes():
    check_speculative_sampler(sample, sequences=10_000)
    check_speculative_sampler(METHODS["speculative_sampling"], drafted=1, vocabulary=2, sequences=20_000)


def test_a_sampler_may_draw_its_own_numbers():
    rng = np.random.default_rng(5)

    def own(p, q, draft, u, u_sample):
        return METHODS["speculative_sampling"](p, q, draft, rng.random(u.shape), rng.random(u_sample.shape))

    check_speculative_sampler(own, sequences=40_000)


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_a_mistake_is_found_whatever_the_models(name):
    """For three pairs of models drawn at random, by evidence far beyond the limit for at least one of them."""
    evidence = []
    for seed in range(3):
        found = deviations(with_mistake(name), seed=seed, sequences=40_000)
        evidence.append(found[0].evidence / found[0].limit if found else 0.0)
    assert min(evidence) > 1
    assert max(evidence) > 3


def test_a_fair_draw_of_other_numbers_is_no_deviation():
    assert deviations(with_mistake("drawn-from-the-end"), sequences=40_000) == []


def test_never_accepting_is_found_although_the_tokens_are_right():
    def never(p, q, draft, u, u_sample):
        tokens = np.full((len(p), p.shape[1]), -1)
        tokens[:, 0] = (np.cumsum(p[:, 0], axis=-1) <= u_sample[:, None]).sum(axis=-1)
        return tokens

    with pytest.raises(DistributionError, match="acceptance at position 0"):
        check_speculative_sampler(never, sequences=20_000)


def test_a_wrong_shape_is_told():
    with pytest.raises(DistributionError, match="should return tokens of shape"):
        check_speculative_sampler(lambda p, q, draft, u, u_sample: draft, sequences=10)


@pytest.mark.parametrize(("draws", "probability"), [(10, 0.3), (25, 0.5), (40, 0.02), (8, 0.9)])
def test_the_bound_holds_exactly_for_every_number_of_draws(draws, probability):
    """Summed over the binomial distribution: P(N KL >= t) <= 2 exp(-t)."""
    mass = np.ones(1)
    for _ in range(draws):
        mass = np.convolve(mass, [1 - probability, probability])
    evidence = np.array([draws * _divergence(hits / draws, probability) for hits in range(draws + 1)])
    for limit in np.linspace(0.1, 12, 40):
        assert mass[evidence >= limit].sum() <= 2 * exp(-limit) * (1 + draws * np.finfo(float).eps)


def test_the_false_alarm_is_as_rare_as_said():
    assert FALSE_ALARM <= 1e-9
