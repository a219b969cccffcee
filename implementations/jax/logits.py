"""The logits of attention in JAX, for queries and keys at any positions: scale, softcap, bias and every way to disallow a key."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from implementations.tiling import Band, Window

__all__ = ["HIGHEST", "Logits", "divided", "expanded", "row_shift", "rows_at", "weigh", "working_dtype"]

# On accelerators JAX multiplies float32 with fewer bits unless it is told otherwise.
HIGHEST = lax.Precision.HIGHEST


def working_dtype(x: Array) -> Any:
    """The dtype to compute in: float64 for float64, float32 for everything narrower."""
    return jnp.promote_types(x.dtype, jnp.float32)


def expanded(x: Array, axes: int = 4) -> Array:
    """A mask or bias with all its axes, those in front of size 1."""
    return x.reshape((1,) * (axes - x.ndim) + x.shape)


def row_shift(maximum: Array) -> Array:
    """The row maximum as a shift of the exponent: 0 in a row without any key, where (-inf) - (-inf) would be NaN."""
    return jnp.where(jnp.isneginf(maximum), 0, maximum)


def divided(weighted: Array, total: Array) -> Array:
    """Weighted values over the denominator; zeros where there is nothing to divide by."""
    return weighted / jnp.where(total == 0, 1, total)


def rows_at(x: Array, positions: Array, axis: int) -> Array:
    """Rows at some positions along an axis; zeros beyond the end. Of an empty axis, too, which `jnp.take` refuses."""
    if not x.shape[axis]:
        return jnp.zeros((*x.shape[:axis], *positions.shape, *x.shape[axis + 1 :]), x.dtype)
    return jnp.take(x, positions, axis=axis, mode="fill", fill_value=0)


class Logits:
    """The logits before softmax, -inf where a key is not allowed, with query heads in their groups: (B, Hkv, Hq / Hkv, ...).

    Attributes:
        shape: (B, Hkv, Hq / Hkv, Lq, Lk), of all logits.
        dtype: the working dtype.
    """

    def __init__(
        self,
        q: Array,
        k: Array,
        mask: Array | None,
        bias: Array | None,
        causal: bool,
        window: Window,
        softcap: Any,
        scale: Any,
    ) -> None:
        batch, heads, queries, width = q.shape
        groups, keys = k.shape[1], k.shape[2]
        self.shape = (batch, groups, heads // groups, queries, keys)
        self.dtype = working_dtype(q)
        self.band = Band.of(queries, keys, causal, window)
        scale = width**-0.5 if scale is None else scale
        self._q = (q.astype(self.dtype) * scale).reshape(batch, groups, heads // groups, queries, width)
        self._k = k.astype(self.dtype)
        self._mask = None if mask is None else self._grouped(mask)
        self._bias = None if bias is None else self._grouped(bias.astype(self.dtype))
        self._softcap = softcap

    def _grouped(self, x: Array) -> Array:
        batch, groups, per_group, queries, keys = self.shape
        return jnp.broadcast_to(expanded(x), (batch, groups * per_group, queries, keys)).reshape(self.shape)

    def values(self, v: Array) -> Array:
        """Values in the working dtype, (B, Hkv, Lk, Dv)."""
        return v.astype(self.dtype)

    def sinks(self, sinks: Array | None) -> Array:
        """The sinks as the logits of one more key, (Hkv, Hq / Hkv, 1, 1); no sink is a sink of -inf."""
        _, groups, per_group, _, _ = self.shape
        given = jnp.full(groups * per_group, -jnp.inf, self.dtype) if sinks is None else sinks.astype(self.dtype)
        return given.reshape(groups, per_group, 1, 1)

    def at(self, queries: Array, keys: Array) -> Array:
        """The logits of queries against keys at some positions, (B, Hkv, Hq / Hkv, queries, keys); -inf beyond the last of either."""
        logits = jnp.einsum(
            "bgrld,bgsd->bgrls", self._taken(self._q, queries, 3), self._taken(self._k, keys, 2), precision=HIGHEST
        )
        if self._softcap is not None:
            logits = self._softcap * jnp.tanh(logits / self._softcap)
        if self._bias is not None:
            logits = logits + self._taken(self._taken(self._bias, queries, 3), keys, 4)
        distance = keys - queries[:, None]
        allowed = (distance >= self.band.lowest) & (distance <= self.band.highest)
        allowed &= (queries[:, None] < self.shape[3]) & (keys < self.shape[4])
        if self._mask is not None:
            allowed = allowed & self._taken(self._taken(self._mask, queries, 3), keys, 4)
        # What stands in a disallowed key may have overflowed: it is replaced, not cancelled by adding -inf.
        return jnp.where(allowed, logits, -jnp.inf)

    @staticmethod
    def _taken(x: Array, positions: Array, axis: int) -> Array:
        """Rows at some positions; zeros beyond the end, so that padding is finite."""
        return rows_at(x, positions, axis)

    def joined(self, x: Array) -> Array:
        """Undo the groups: (B, Hkv, Hq / Hkv, ...) -> (B, Hq, ...)."""
        batch, groups, per_group = self.shape[:3]
        return x.reshape(batch, groups * per_group, *x.shape[3:])


def weigh(weights: Array, v: Array) -> Array:
    """Weights (B, Hkv, Hq / Hkv, L, S) times values (B, Hkv, S, Dv)."""
    return jnp.einsum("bgrls,bgse->bgrle", weights, v, precision=HIGHEST)

