"""Mistakes of linear attention in chunks and states: at the boundaries of chunks, in the last one, and in their precision."""

from __future__ import annotations

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.linear import CHUNKED, Gated, Linear, also_in
from conformance.pitfalls.random_features import Stabilised

TILES = (16, 32, 64, 128)


class InChunks(Linear):
    """Linear attention computed chunk by chunk; its mistakes are told by how often each key counts."""

    variants = TILES

    def applies(self) -> bool:
        """Whether the mistake can show on this call: never where the chunk is unknown."""
        return self.chunk > 0 and super().applies()

    def same(self) -> Array:
        """Whether query and key lie in the same chunk, (L, L)."""
        return self.chunk_of()[:, None] == self.chunk_of()[None, :]


@also_in(Stabilised)
class StateDropped(InChunks):
    name = "state-dropped-at-chunk"
    explanation = "The state is not carried from chunk to chunk: a query reads the keys of its own chunk only."
    citation = CHUNKED
    needs = "causal and l > chunk"

    def counts(self) -> Array:
        return super().counts() * self.same()


@also_in(Stabilised)
class StateOneBehind(InChunks):
    name = "state-one-chunk-behind"
    explanation = "The state of the chunk just before is not in yet when a chunk is computed."
    citation = CHUNKED
    needs = "causal and l > chunk"

    def counts(self) -> Array:
        return super().counts() * (self.chunk_of()[:, None] != self.chunk_of()[None, :] + 1)


@also_in(Stabilised)
class LastOfChunkLost(InChunks):
    name = "last-token-of-chunk-lost"
    explanation = "The state that is carried on leaves out the last token of every chunk."
    citation = CHUNKED
    needs = "causal and l > chunk"

    def counts(self) -> Array:
        last = np.arange(self.length) % self.chunk == self.chunk - 1
        return super().counts() * (self.same() | ~last)


@also_in(Stabilised)
class ChunkCountedTwice(InChunks):
    name = "chunk-counted-twice"
    explanation = "The state takes in a chunk before its queries are answered: its keys count by the weights and by the state."
    citation = CHUNKED
    needs = "causal"

    def counts(self) -> Array:
        return super().counts() + self.same()


@also_in(Stabilised)
class ChunkNotMasked(InChunks):
    name = "chunk-not-masked"
    explanation = "Within a chunk the weights are not masked: queries read later keys of their own chunk."
    citation = CHUNKED
    needs = "causal and l > 1 and chunk > 1"

    def counts(self) -> Array:
        return np.maximum(super().counts(), self.same())


@also_in(Stabilised)
class ChunkWithoutOwn(InChunks):
    name = "chunk-without-own-keys"
    explanation = "A query reads the state before its chunk only: the weights inside the chunk are left out."
    citation = CHUNKED
    needs = "causal"

    def counts(self) -> Array:
        return super().counts() * ~self.same()


@also_in(Gated, Stabilised)
class LastChunkDropped(InChunks):
    name = "last-chunk-dropped"
    explanation = "The number of chunks is rounded down: the keys of a last chunk that is not full are never read."
    citation = CHUNKED
    needs = "l % chunk != 0"

    def counts(self) -> Array:
        return super().counts() * (np.arange(self.length) < self.length // self.chunk * self.chunk)


@also_in(Gated, Stabilised)
class LastChunkOverlaps(InChunks):
    name = "last-chunk-overlaps"
    explanation = "The last chunk is moved back to be full, and the keys that it shares with the one before count twice."
    citation = CHUNKED
    needs = "not causal and l > chunk and l % chunk != 0"

    def counts(self) -> Array:
        twice = (np.arange(self.length) >= self.length - self.chunk) & (np.arange(self.length) < self.length // self.chunk * self.chunk)
        return super().counts() + twice


@also_in(Gated)
class PaddingCounted(InChunks):
    name = "padding-of-last-chunk-counted"
    explanation = "The last chunk is padded with zero keys, whose features are not zero: they join the denominator."
    citation = CHUNKED
    needs = "not causal and l % chunk != 0 and feature_map != 'relu'"

    def total(self, weights: Array) -> Array:
        padding = -self.length % self.chunk
        features = self.mapped(np.zeros((1, 1, 1, self.width), self.dtype))
        gate = self.padding_gate()
        return super().total(weights) + padding * gate * (self.query_features() * features).sum(axis=-1, keepdims=True)

    def padding_gate(self) -> float:
        """What a key of zeros weighs."""
        return 0.5 if isinstance(self, Gated) else 1.0


class DenominatorOfOwnChunk(InChunks):
    name = "denominator-not-carried-to-next-chunk"
    explanation = "The numerator's state is carried from chunk to chunk, the denominator's is not."
    citation = CHUNKED
    needs = "causal and l > chunk"

    def denominator_weights(self, products: Array) -> Array:
        return super().denominator_weights(products) * self.same()


class StateInStorage(Linear):
    name = "state-in-storage-dtype"
    explanation = "The state is kept in the 16 bits of the inputs: each token is rounded into it, and a long sum stops growing."
    citation = "Blanchard et al. 2020, SIAM J. Sci. Comput. 42(3), C124"
    needs = "half and l > 16 and not narrow_state"

    def outputs(self) -> tuple[Array, ...]:
        queries, keys = self.query_features(), self.key_features() * self.gates()
        values = np.concatenate([self.v, np.ones((*self.v.shape[:3], 1), self.dtype)], axis=3)
        state = np.zeros((self.batch, self.heads, keys.shape[3], values.shape[3]), self.dtype)
        sums = np.empty((*queries.shape[:3], values.shape[3]), self.dtype)
        for token in range(self.length):
            state = self.stored(state + keys[:, :, token, :, None] * values[:, :, token, None, :])
            sums[:, :, token] = (queries[:, :, token, None] @ state)[:, :, 0]
        if not self.causal:
            sums = queries @ state
        return (self.divided(sums[..., :-1], sums[..., -1:]).astype(self.dtype),)


@also_in(Gated)
class ComputedInSingle(Linear):
    name = "computed-in-float32"
    explanation = "Arguments in float64 are computed with in float32 and the result is widened again."
    citation = "NVIDIA/torch-harmonics#204"
    needs = "dtype == 'float64'"

    def divided(self, weighed: Array, total: Array) -> Array:
        single = super().divided(weighed.astype(np.float32), total.astype(np.float32))
        return single.astype(np.float32).astype(self.dtype)


class PerformerInSingle(ComputedInSingle, Stabilised):
    name = "computed-in-float32"
    methods = Stabilised.methods
    needs = "dtype == 'float64' and eps < 1e-9"  # else what eps may weigh hides it
