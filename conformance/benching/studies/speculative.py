"""Decoding with drafts, timed, beside what the theorem makes of the acceptance and the cost that were measured.

The target is a stack of products whose weights do not fit a cache, so that checking a few tokens at once takes little longer than one;
it looks at the last token alone, which makes its distributions a table. The draft model is that table, blurred, and a smaller stack.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.benching.measuring import Step
from conformance.benching.run import Bench
from conformance.benching.studies import Study, Table
from conformance.loading import load
from oracle import METHODS
from oracle.decoding_speed import expected_tokens, speed_up

__all__ = ["Models", "simulated_tokens", "study"]

DRAFTED = (1, 2, 4, 8)
SAMPLER = "numpy.speculative_sampling"


def simulated_tokens(acceptance: float, drafted: int, rounds: int, seed: int = 0) -> float:
    """Tokens of a round on average, by the oracle's own acceptance of drafted tokens.

    Args:
        acceptance: the probability that a drafted token is kept: the draft model always says token 0, which the target gives so often.
        drafted: tokens of a round.
        rounds: how many to play.
        seed: of the random numbers.
    """
    target = np.broadcast_to([acceptance, 1 - acceptance], (rounds, drafted + 1, 2))
    draft = np.broadcast_to([1.0, 0.0], (rounds, drafted, 2))
    uniforms = np.random.default_rng(seed).random((rounds, drafted))
    accepted = METHODS["speculative_accept"](target, draft, np.zeros((rounds, drafted), np.int64), uniforms)
    return float(np.mean(accepted)) + 1  # the target always adds one


@dataclass
class Models:
    """A target and a draft model; see the module.

    Args:
        width, hidden, layers: of the target.
        vocabulary: tokens.
        blur: how much of the draft's distributions is uniform.
        share: of the target's hidden units that the draft model has.
    """

    width: int = 1024
    hidden: int = 4096
    layers: int = 2
    vocabulary: int = 256
    blur: float = 0.3
    share: int = 32

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)

        def matrix(rows: int, columns: int) -> np.ndarray:
            return rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(rows))

        self.embedding = matrix(self.vocabulary, self.width) * np.float32(np.sqrt(self.vocabulary))
        self.stack = [(matrix(self.width, self.hidden), matrix(self.hidden, self.width)) for _ in range(self.layers)]
        small = max(self.hidden // self.share, 1)
        self.small_stack = [(np.ascontiguousarray(up[:, :small]), np.ascontiguousarray(down[:small])) for up, down in self.stack[:1]]
        self.unembedding = matrix(self.width, self.vocabulary) * 2
        self._blurred = (1 - self.blur) * self.target(np.arange(self.vocabulary)) + np.float32(self.blur / self.vocabulary)

    def target(self, tokens: np.ndarray) -> np.ndarray:
        """Distributions of the next token after each of some tokens, in one pass."""
        states = self._through(self.embedding[tokens], self.stack)
        logits = states @ self.unembedding
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def draft(self, token: int) -> np.ndarray:
        """The draft model's distribution after a token: it computes as long as its own size takes, and knows the answer."""
        self._through(self.embedding[[token]], self.small_stack)
        return self._blurred[token]

    @staticmethod
    def _through(states: np.ndarray, stack: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        for up, down in stack:
            states = states + np.maximum(states @ up, 0) @ down
            states = states / np.sqrt(np.mean(states * states, axis=-1, keepdims=True))
        return states


def _plain(models: Models, tokens: int, rng: np.random.Generator) -> float:
    """Seconds a token without drafts."""
    token, started = 0, time.perf_counter()
    for uniform in rng.random(tokens):
        token = _sampled(models.target(np.array([token]))[0], uniform)
    return (time.perf_counter() - started) / tokens


def _sampled(distribution: np.ndarray, uniform: float) -> int:
    return min(int(np.searchsorted(np.cumsum(distribution), uniform)), len(distribution) - 1)


def _drafting(models: Models, sample: Any, drafted: int, tokens: int, rng: np.random.Generator) -> dict[str, float]:
    """Seconds a token with drafts, tokens a round, kept of those that were looked at, seconds of a draft's token and of a check."""
    token, made, rounds, looked, kept, drafting, checking = 0, 0, 0, 0, 0, 0.0, 0.0
    started = time.perf_counter()
    while made < tokens:
        uniforms = rng.random((2, 1, drafted + 1)).astype(np.float32)
        before = time.perf_counter()
        guessed, distributions = [], []
        last = token
        for number in range(drafted):
            distributions.append(models.draft(last))
            last = _sampled(distributions[-1], float(uniforms[1, 0, number]))
            guessed.append(last)
        drafting += time.perf_counter() - before
        before = time.perf_counter()
        checked = models.target(np.array([token, *guessed]))
        checking += time.perf_counter() - before
        got = sample(checked[None], np.stack(distributions)[None], np.array([guessed]), uniforms[0, :, :drafted], uniforms[0, :, drafted])
        got = got[0][got[0] >= 0]
        made, rounds, token = made + len(got), rounds + 1, int(got[-1])
        looked += min(len(got), drafted)
        kept += len(got) - 1
    took = time.perf_counter() - started
    return {
        "seconds": took / made, "tokens": made / rounds, "acceptance": kept / looked, "draft": drafting / rounds / drafted,
        "check": checking / rounds,
    }  # fmt: skip


def _run(request: Bench, step: Step, models: Models | None = None, tokens: int = 192) -> Table:
    made, table = models or Models(), []
    [registration] = load(SAMPLER)
    for number, drafted in enumerate(DRAFTED):
        rng = np.random.default_rng(1)
        pairs = [(_plain(made, tokens, rng), _drafting(made, registration.function, drafted, tokens, rng)) for _ in range(request.runs)]
        plain = float(np.median([one for one, _ in pairs]))
        own = {name: float(np.median([one[name] for _, one in pairs])) for name in pairs[0][1]}
        cost, check = own["draft"] / plain, own["check"] / plain
        by_theorem = expected_tokens(own["acceptance"], drafted)
        table.append({
            "drafted": drafted, "acceptance": own["acceptance"], "cost": cost, "check": check, "tokens a round": own["tokens"],
            "by the theorem": by_theorem, "speed-up": plain / own["seconds"],
            "speed-up by the theorem": speed_up(own["acceptance"], drafted, cost),
            "with that check": by_theorem / (check + drafted * cost),
            "accepted / (1 + drafted)": (own["tokens"] - 1) / (1 + drafted),
        })  # fmt: skip
        step(f"{drafted} drafted", number + 1, len(DRAFTED))
    return table


study = Study(
    _run,
    "medians of runs with and without drafts in turns; acceptance: kept of the drafted tokens that were looked at; cost: a draft's token "
    "over a pass of the target for one token; check: a pass that checks all drafted tokens over that, which the theorem (Leviathan et al. "
    "2023, 3.8) takes for 1; with that check: what the theorem gives for the one that was measured",
)
