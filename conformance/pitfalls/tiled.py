"""Mistakes at the edges of tiles: the online softmax, the last tile, and tiles that are skipped or taken as full."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Reference


class Tiled(Reference):
    """Attention with an online softmax over tiles of keys (Milakov and Gimelshein 2018, arXiv:1805.02867).

    Which tiles are visited is a matter of which keys are allowed, so only the tiles of keys are a loop.

    Attributes:
        padding: score of the lanes of the last tile that lie beyond the last key; their values are zero.
    """

    variants: ClassVar[tuple[int, ...]] = (16, 32, 64, 128)
    padding: float = -np.inf

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.tile = setting.tunables.get("block_k", 0)
        self.query_tile = setting.tunables.get("block_q", self.tile)

    def facts(self) -> dict[str, Any]:
        """Those of the reference, and the tile sizes."""
        return {**super().facts(), "tile": self.tile, "query_tile": self.query_tile}

    def applies(self) -> bool:
        """Whether the mistake can show on this call: never where the tile is unknown."""
        return self.tile > 0 and super().applies()

    # Tiles: (Lk,) for keys, (Lq, 1) for queries.

    def slices(self) -> list[slice]:
        """The tiles of keys, the last one with its padding."""
        return [slice(start, start + self.tile) for start in range(0, self.keys, self.tile)]

    def first_keys(self) -> Array:
        """The first key of each key's tile."""
        return np.arange(self.keys) // self.tile * self.tile

    def last_keys(self) -> Array:
        """The last key of each key's tile."""
        return np.minimum(self.first_keys() + self.tile, self.keys) - 1

    def first_queries(self) -> Array:
        """The first query of each query's tile."""
        return np.arange(self.queries)[:, None] // self.query_tile * self.query_tile

    def last_queries(self) -> Array:
        """The last query of each query's tile."""
        return np.minimum(self.first_queries() + self.query_tile, self.queries) - 1

    def first_positions(self) -> Array:
        """Where the first query of each query's tile stands among the keys."""
        return self.positions()[self.first_queries()[:, 0]]

    def last_positions(self) -> Array:
        """Where the last query of each query's tile stands among the keys."""
        return self.positions()[self.last_queries()[:, 0]]

    # The online softmax.

    def first_maximum(self) -> Array:
        """The running maximum before the first tile, (B, Hq, Lq, 1)."""
        return np.broadcast_to(self.sink(), (*self.shape[:3], 1))

    def rescaled_sum(self, total: Array, decay: Array) -> Array:
        """The sum so far, under a new maximum."""
        return total * decay

    def rescaled(self, out: Array, decay: Array) -> Array:
        """The weighed values so far, under a new maximum."""
        return out * decay

    def outputs(self) -> tuple[Array, ...]:
        """The steps, tile by tile."""
        beyond = -self.keys % self.tile
        scores = np.pad(self.scores(), ((0, 0), (0, 0), (0, 0), (0, beyond)), constant_values=self.padding)
        values = np.pad(self.read_values(), ((0, 0), (0, 0), (0, beyond), (0, 0)))
        maximum = self.first_maximum()
        total = np.exp(self.sink() - np.where(np.isfinite(maximum), maximum, 0.0))
        out = np.zeros((*self.shape[:3], values.shape[3]), self.dtype)
        for keys in self.slices():
            highest = np.maximum(maximum, scores[..., keys].max(axis=-1, keepdims=True))
            shift = self.shift(highest)
            decay = np.exp(maximum - shift)
            weights = self.exponentials(scores[..., keys], shift)
            total = self.rescaled_sum(total, decay) + weights.sum(axis=-1, keepdims=True)
            out = self.rescaled(out, decay) + weights @ values[:, :, keys]
            maximum = highest
        return self.finished(self.normalised(out, total), self.lse(total, self.shift(maximum)))


class StaleAccumulator(Tiled):
    name = "stale-accumulator"
    explanation = "When a tile raises the maximum, the values gathered so far are not rescaled."
    citation = "Milakov and Gimelshein 2018, algorithm 3, arXiv:1805.02867"
    needs = "s > tile"

    def rescaled(self, out: Array, decay: Array) -> Array:
        return out


class SumNotRescaled(Tiled):
    name = "sum-not-rescaled"
    explanation = "When a tile raises the maximum, the sum of the weights so far is not rescaled."
    citation = "Milakov and Gimelshein 2018, algorithm 3, arXiv:1805.02867"
    needs = "s > tile"

    def rescaled_sum(self, total: Array, decay: Array) -> Array:
        return total


class RescaleTwice(Tiled):
    name = "rescale-twice"
    explanation = "When a tile raises the maximum, the values gathered so far are rescaled twice, the sum once."
    citation = "Dao 2023, section 3.1, arXiv:2307.08691"
    needs = "s > tile"

    def rescaled(self, out: Array, decay: Array) -> Array:
        return out * decay * decay


class RescaleInverted(Tiled):
    name = "rescale-inverted"
    explanation = "The factor of the rescaling is exp(new - old maximum) instead of exp(old - new maximum)."
    citation = "FlashMLA#177"
    needs = "s > tile"

    def rescaled(self, out: Array, decay: Array) -> Array:
        return np.where(decay == 0, 0.0, out / decay)


class ScaleGrows(Tiled):
    name = "scale-grows-with-every-tile"
    explanation = "log2(e) is multiplied into the scale anew for every tile of keys."
    citation = "FlagGems#424"
    needs = "s > tile"

    def scaled(self, logits: Array) -> Array:
        growth = (1 / log(2)) ** (np.arange(self.keys) // self.tile)
        return super().scaled(logits) * growth.astype(self.dtype)


class FiniteFirstMaximum(Tiled):
    name = "maximum-starts-at-finite-sentinel"
    explanation = "The running maximum starts at -50000, taken for minus infinity: rows whose logits all lie below return zeros."
    citation = "flashinfer#4267"
    occasional = True

    def applies(self) -> bool:
        return super().applies() and bool((self.maximum(self.scores(), self.sink()) < -5e4).any())

    def first_maximum(self) -> Array:
        return np.maximum(super().first_maximum(), -5e4)


class FirstTilesMaskedNan(Tiled):
    name = "tile-fully-masked-nan"
    explanation = "While a row has met hidden keys only, its maximum is -inf, and (-inf) - (-inf) makes the row NaN."
    citation = "xformers#722"
    needs = "empty and sinks is None and s > tile"

    def shift(self, maximum: Array) -> Array:
        return maximum


class TailTileDropped(Tiled):
    name = "tail-tile-dropped"
    explanation = "The number of tiles is rounded down: the keys of a partial last tile are never read."
    citation = "vllm-gaudi#1395"
    needs = "s % tile != 0"

    def slices(self) -> list[slice]:
        return super().slices()[:-1]


class TailPaddingCounted(Tiled):
    name = "tail-padding-keys-counted"
    explanation = "The zeros that pad the last tile take part as keys that score 0: they enlarge the denominator."
    citation = "flashinfer#3716"
    needs = "s % tile != 0 and not causal and right is None"
    padding = 0.0


class TailPaddingSoftcapped(Tiled):
    name = "softcap-after-padding"
    explanation = "The softcap turns the -inf of the lanes that pad the last tile into -c: they enlarge the denominator."
    citation = "llama.cpp#29034"
    needs = "softcap is not None and s % tile != 0 and mask is None and not causal and right is None"
    occasional = True

    @property
    def padding(self) -> float:  # type: ignore[override]
        return -float(self.softcap or 0)


class TailJudgedByQueries(TailPaddingCounted):
    name = "tail-mask-by-query-length"
    explanation = "Whether the last tile of keys is partial is judged by the number of queries."
    citation = "flash-attention commit a4f148b6"
    needs = "s % tile != 0 and l % query_tile == 0 and not causal and right is None"
    occasional = True


class TailShiftedBack(Tiled):
    name = "tail-tile-shifted-back"
    explanation = "The last tile is shifted back to be full, and the keys that it shares with the tile before count twice."
    citation = "Dao et al. 2022, algorithm 1, arXiv:2205.14135"
    needs = "s > tile and s % tile != 0"

    def slices(self) -> list[slice]:
        return [*super().slices()[:-1], slice(self.keys - self.tile, self.keys)]


class QueryTailUnwritten(Tiled):
    name = "query-tail-unwritten"
    explanation = "The number of tiles of queries is rounded down: the rows of a partial last tile are never written."
    citation = "nntrainer#3989"
    needs = "l % query_tile != 0"

    def finished(self, out: Array, lse: Array) -> tuple[Array, Array]:
        written = self.first_queries() + self.query_tile <= self.queries
        return super().finished(np.where(written, out, 0.0), np.where(written, lse, 0.0))


class SkippedByTopLeft(Tiled):
    name = "tile-skipped-by-top-left-causality"
    explanation = "Tiles of keys beyond the last query's index are skipped as if Lq == Lk, although the keys inside are masked rightly."
    citation = "flash-attention#282"
    needs = "moved and causal"

    def within_band(self) -> Array:
        return super().within_band() & (self.first_keys() <= self.last_queries())


class CausalRangeShort(Tiled):
    name = "causal-tile-range-one-short"
    explanation = "The tiles up to the diagonal are counted one key short: a tile that begins at the last query's own key is skipped."
    citation = "Dao 2023, section 3.1.1, arXiv:2307.08691"
    needs = "moved and causal"

    def within_band(self) -> Array:
        return super().within_band() & (self.first_keys() < self.last_positions())


class DiagonalTileFull(Tiled):
    name = "diagonal-tile-taken-as-full"
    explanation = "A tile that the last query of its tile may read wholly is taken as full: the queries above see keys ahead of them."
    citation = "flash-attention#436"
    needs = "moved"

    def within_causal(self, offsets: Array) -> Array:
        return super().within_causal(offsets) | (self.last_keys() <= self.last_positions())


class MaskUncheckedBelowDiagonal(Tiled):
    name = "mask-unchecked-below-diagonal"
    explanation = "In tiles that lie wholly below the causal diagonal the mask is not looked at."
    citation = "FastDeploy#3514"
    needs = "mask is not None and causal and below"

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "below": lambda: bool(self.below().any())}

    def below(self) -> Array:
        return self.last_keys() <= self.first_positions()

    def within_mask(self) -> Array:
        return super().within_mask() | self.below()


class MaskTileFull(Tiled):
    name = "mask-tile-taken-as-full"
    explanation = "The mask is reduced to one bit a tile: a tile with any allowed key is open as a whole."
    citation = "pytorch#141126"
    needs = "mask is not None and s > 0 and (tile > 1 or query_tile > 1)"

    def within_mask(self) -> Array:
        tiles = np.broadcast_to(super().within_mask(), self.shape)
        for axis, starts in ((2, self.first_queries()[:, 0]), (3, self.first_keys())):
            tiles = np.logical_or.reduceat(tiles, np.unique(starts), axis=axis).repeat(np.unique(starts, return_counts=True)[1], axis=axis)
        return tiles


class WindowFromLastRow(Tiled):
    name = "window-tiles-start-at-last-row"
    explanation = "The first tile inside the window is found for the last query of a tile; queries above lose the keys before it."
    citation = "tt-metal#30362"
    needs = "moved and left is not None"

    def within_window(self, offsets: Array) -> Array:
        return super().within_window(offsets) & (self.last_keys() >= self.last_positions() - (self.left or 0))


class WindowBoundaryTileDropped(Tiled):
    name = "window-boundary-tile-dropped"
    explanation = "The length of the window in tiles is rounded down: the tile that it covers in part is not read."
    citation = "vllm-gaudi#1395"
    needs = "moved and left is not None"

    def within_window(self, offsets: Array) -> Array:
        return super().within_window(offsets) & (self.first_keys() >= self.first_positions() - (self.left or 0))
