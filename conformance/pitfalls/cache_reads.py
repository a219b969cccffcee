"""Mistakes of caches in what a query reads: causality within a chunk, the sliding window, heads and scale."""

from __future__ import annotations

from math import sqrt

import numpy as np

from conformance.pitfalls.caches import BATCHING, CacheMistake
from conformance.pitfalls.dense import Array

WINDOW = "Jiang et al. 2023, section 2, arXiv:2310.06825"


class GrowthNotCausal(CacheMistake):
    name = "new-tokens-not-causal"
    explanation = "Tokens that come together all read each other, the later ones too."
    citation = BATCHING

    def read(self, held: list[int], later: int, newest: int) -> list[int]:
        return self.in_window(held)


class CausalFromFirst(CacheMistake):
    name = "new-tokens-aligned-with-first"
    explanation = "The causal mask of tokens that come together is aligned with the first cached token instead of the last."
    citation = BATCHING
    needs = "grows"

    def read(self, held: list[int], later: int, newest: int) -> list[int]:
        return self.in_window(held[: newest - later] if newest > 1 else held)


class OwnTokenUnread(CacheMistake):
    name = "own-token-unread"
    explanation = "A query reads what was cached before its own token, not that token."
    citation = BATCHING

    def read(self, held: list[int], later: int, newest: int) -> list[int]:
        return self.in_window(held[: len(held) - later])[:-1]


class WindowIgnored(CacheMistake):
    name = "sliding-window-ignored"
    explanation = "Queries read all tokens, also those before the sliding window."
    citation = WINDOW
    needs = "sliding_window is not None"

    def in_window(self, tokens: list[int]) -> list[int]:
        return tokens


class WindowOneMore(CacheMistake):
    name = "sliding-window-one-more"
    explanation = "The sliding window does not count the query's own token: one token too many is read."
    citation = WINDOW
    needs = "sliding_window is not None"

    def in_window(self, tokens: list[int]) -> list[int]:
        return tokens[-self.window - 1 :]


class WindowOneLess(CacheMistake):
    name = "sliding-window-one-less"
    explanation = "The sliding window counts one token too few."
    citation = WINDOW
    needs = "sliding_window is not None"

    def in_window(self, tokens: list[int]) -> list[int]:
        return tokens[len(tokens) - min(len(tokens), self.window) + 1 :] if len(tokens) >= self.window else tokens


class RingOverflows(CacheMistake):
    name = "ring-overflows"
    explanation = "A ring has as many slots as the window: of tokens that come together the later ones overwrite what the first need."
    citation = WINDOW
    needs = "sliding_window is not None"

    def read(self, held: list[int], later: int, newest: int) -> list[int]:
        ring = self.in_window(held)
        return ring[: max(len(ring) - later, 0)]


class HeadsInterleaved(CacheMistake):
    name = "heads-interleaved"
    explanation = "Query head h reads key/value head h % Hkv instead of h // (Hq // Hkv): repeat where repeat_interleave belongs."
    citation = "Ainslie et al. 2023, arXiv:2305.13245"
    needs = "1 < g and g < h"

    def keys_of_heads(self, x: Array) -> Array:
        return np.tile(x, (1, self.q.shape[1] // x.shape[1], 1))


class Unscaled(CacheMistake):
    name = "scale-missing"
    explanation = "Logits are not scaled."
    citation = "Vaswani et al. 2017, eq. 1, arXiv:1706.03762"

    def factor(self) -> float:
        return 1.0


class ScaleIgnored(CacheMistake):
    name = "scale-ignored"
    explanation = "The scale that is given is ignored: logits are divided by sqrt(D)."
    citation = "Vaswani et al. 2017, eq. 1, arXiv:1706.03762"
    needs = "scale is not None"

    def factor(self) -> float:
        return 1 / sqrt(self.q.shape[2])
