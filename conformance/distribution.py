"""Speculative sampling as a whole: is every token that comes out distributed like the target model's?

`certify` holds a sampler against the oracle number by number, which takes a sampler that draws as the method says. This holds any
sampler, with randomness of its own if it likes, against the distribution: drafts are drawn from q, and each token that comes out,
given that its position was reached, has to be distributed like p there, and drafted tokens have to be accepted as often as they are
alike, sum of min(p, q).

The test is exact. By Chernoff's bound the fraction x of N independent draws that fall into a cell of probability p has
P(N KL(x || p) >= t) <= 2 exp(-t), for every N. So with t = log(2 cells / alpha) a right sampler raises a false alarm with a
probability of at most alpha, whatever the number of cells and rows; alpha is 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

__all__ = ["FALSE_ALARM", "Deviation", "DistributionError", "check_speculative_sampler", "deviations"]

FALSE_ALARM = 1e-9

# Sequences that are drawn, and the most in one call. A cell that is off by 2 percentage points is found practically always.
SEQUENCES, AT_ONCE = 120_000, 20_000

Sampler = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], Any]


class DistributionError(AssertionError):
    """A sampler draws tokens that are not distributed like the target model's; the message says where and how far off."""


@dataclass(frozen=True)
class Deviation:
    """One probability that a sampler gets wrong.

    Attributes:
        what: of which event, in words.
        got, wanted: its frequency and its probability.
        draws: in how many draws.
        evidence: N KL(got || wanted).
        limit: which a right sampler exceeds with a probability of at most alpha over the number of cells.
    """

    what: str
    got: float
    wanted: float
    draws: int
    evidence: float
    limit: float

    def __str__(self) -> str:
        return f"{self.what} has frequency {self.got:.5g} in {self.draws} draws, but should have probability {self.wanted:.5g}"


def _divergence(x: float, p: float) -> float:
    """KL divergence of two coins; inf where x is impossible."""
    if (x > 0 and p <= 0) or (x < 1 and p >= 1):
        return float("inf")
    return (x * log(x / p) if x > 0 else 0.0) + ((1 - x) * log((1 - x) / (1 - p)) if x < 1 else 0.0)


def _models(rng: np.random.Generator, drafted: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Two models that differ in every row, each of them with impossible tokens, in doubles that add up to 1."""
    p, q = (rng.dirichlet(np.full(vocabulary, 0.7), rows) for rows in (drafted + 1, drafted))
    p[0, -1], q[drafted - 1, 0] = 0.0, 0.0
    return p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)


def deviations(sampler: Sampler, *, seed: int = 0, drafted: int = 3, vocabulary: int = 6, sequences: int = SEQUENCES,
               alpha: float = FALSE_ALARM) -> list[Deviation]:  # fmt: skip
    """What a sampler gets wrong, the most evident first; nothing for a right one, but for a probability of at most alpha.

    Args:
        sampler: as `speculative_sampling`: (p (B, n + 1, V), q (B, n, V), draft (B, n), u (B, n), u_sample (B,)) in float64 to
            tokens (B, n + 1), -1 behind the last. It may draw its own random numbers instead of reading u and u_sample.
        seed: of the models and of all random numbers: the same seed gives the same test.
        drafted, vocabulary: n and V.
        sequences: how many are drawn.
        alpha: the probability of a false alarm.
    """
    rng = np.random.default_rng(seed)
    p, q = _models(rng, drafted, vocabulary)
    tokens = np.concatenate(list(_drawn(sampler, rng, p, q, sequences)))
    limit = log(2 * ((drafted + 1) * vocabulary + drafted) / alpha)
    found = []
    for what, hits, draws, wanted in _cells(tokens, p, q):
        got = hits / draws if draws else wanted
        evidence = draws * _divergence(got, wanted)
        if evidence > limit:
            found.append(Deviation(what, got, wanted, draws, evidence, limit))
    return sorted(found, key=lambda deviation: -deviation.evidence)


def _drawn(sampler: Sampler, rng: np.random.Generator, p: np.ndarray, q: np.ndarray, sequences: int) -> Iterator[np.ndarray]:
    drafted, vocabulary = q.shape
    for start in range(0, sequences, AT_ONCE):
        batch = min(AT_ONCE, sequences - start)
        draft = np.stack([rng.choice(vocabulary, batch, p=row) for row in q], axis=1)
        u, u_sample = rng.random((batch, drafted)), rng.random(batch)
        target, drafting = (np.broadcast_to(x, (batch, *x.shape)).copy() for x in (p, q))
        made = np.asarray(sampler(target, drafting, draft, u, u_sample))
        if made.shape != (batch, drafted + 1):
            raise DistributionError(f"the sampler returned {made.shape}, but should return tokens of shape {(batch, drafted + 1)}")
        yield made


def _cells(tokens: np.ndarray, p: np.ndarray, q: np.ndarray) -> Iterator[tuple[str, int, int, float]]:
    """Events: in words, how often they happened in how many draws, and their probability."""
    count = (tokens >= 0).sum(axis=1)
    for position, row in enumerate(p):
        own = tokens[count > position, position]
        for token, probability in enumerate(row):
            yield f"token {token} at position {position}", int((own == token).sum()), len(own), float(probability)
    for position in range(len(q)):
        reached, alike = count > position, float(np.minimum(p[position], q[position]).sum())
        yield f"acceptance at position {position}", int((count > position + 1).sum()), int(reached.sum()), alike


def check_speculative_sampler(sampler: Sampler, *, seed: int = 0, **sizes: int) -> None:
    """Raise `DistributionError` unless tokens come out as they should; see `deviations` for the arguments."""
    found = deviations(sampler, seed=seed, **sizes)
    if found:
        raise DistributionError(f"{found[0]} (false alarms have a probability below {FALSE_ALARM:g}); {len(found)} such cells")
