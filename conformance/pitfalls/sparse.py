"""Mistakes of sparse attention: which keys a query reads, and the dense mistakes that a hidden key can suffer.

A sparse method is dense attention under a set of keys, so a mistake is a wrong set, or a key that counts twice, or one of the
mistakes of `conformance.pitfalls` about masks, scale, heads and softmax, declared anew for each sparse method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting, logits, masking, softmax, tiled, windows  # noqa: F401  (they declare the dense mistakes)
from conformance.pitfalls.dense import Array, Reference, declare_dense
from oracle import METHODS

__all__ = ["SPARSE", "Given", "Sizes", "SparseReference", "key_mistake", "padding_mistake", "positions_of", "weight_mistake"]

# Dense mistakes that make sense whatever set of keys a query reads.
DENSE_MISTAKES = (
    "heads-interleaved", "heads-first-kv-head", "values-shifted-by-one-key", "later-batches-unwritten", "scale-twice",
    "scale-option-twice", "scale-forgotten", "scale-option-ignored", "scale-by-width", "scale-by-value-width",
    "scale-zero-taken-for-default", "scale-reciprocal", "exp2-without-log2e", "logits-in-storage-dtype",
    "mask-polarity-inverted", "mask-added-as-number",
    "mask-multiplies-scores", "mask-then-normalise", "empty-row-nan", "empty-row-mean", "unstable-softmax", "shift-by-global-maximum",
    "maximum-starts-at-zero", "maximum-over-hidden-keys", "softmax-over-queries", "output-not-normalised", "softmax-in-storage-dtype",
    "computed-in-float32",
    "stale-accumulator", "sum-not-rescaled", "rescale-twice", "rescale-inverted", "tile-fully-masked-nan", "tail-tile-dropped",
    "tail-tile-shifted-back", "query-tail-unwritten", "mask-tile-taken-as-full",
)  # fmt: skip

Given = Mapping[str, Any]
Sizes = Mapping[str, int]


class SparseReference(Reference):
    """A sparse method in the steps of dense attention, its keys given as a mask; see `Reference`.

    Attributes:
        method: name of the method.
        given: the arguments as they were.
    """

    method: ClassVar[str]

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        self.given, shape = arguments, (*arguments["q"].shape[:3], arguments["k"].shape[2])
        self.sizes = dict(zip("bhls", shape, strict=True))
        visible = METHODS[self.method].visible
        assert visible is not None, "a sparse method says which keys it reads"
        kept = {name: arguments[name] for name in ("q", "k", "v", "scale") if name in arguments}
        super().__init__({**kept, "mask": np.broadcast_to(visible(arguments, self.sizes), shape)}, setting)

    def facts(self) -> dict[str, Any]:
        """Those of the reference, and the method's own options."""
        own = {name: self.given.get(name) for name in METHODS[self.method].options}
        return {
            **super().facts(), **own, "tokens": len(own.get("global_tokens") or ()), "wrong": lambda: self.is_wrong,
            "hidden": lambda: not self.mask.all(), "empty": lambda: not self.mask.any(axis=-1).all(),
        }  # fmt: skip

    @cached_property
    def is_wrong(self) -> bool:
        """Whether the mistake makes some query read other keys."""
        return not np.array_equal(np.broadcast_to(self.within_mask(), self.shape), self.mask)


SPARSE: dict[str, type[SparseReference]] = {
    name: type(f"Right_{name}", (SparseReference,), {"method": name})
    for name in (
        "local_global_attention", "strided_attention", "fixed_attention", "bigbird_attention", "block_sparse_attention",
        "pattern_attention",
    )
}  # fmt: skip


def positions_of(sizes: Sizes) -> tuple[Array, Array]:
    """Positions of the queries (Lq, 1) and of the keys (1, Lk)."""
    return np.arange(sizes["l"])[:, None], np.arange(sizes["s"])[None, :]


def key_mistake(
    method: str, name: str, explanation: str, citation: str, keys: Callable[[Given, Sizes, Setting], Array], needs: str = "True"
) -> None:
    """Declare a mistake in which keys a query reads.

    Args:
        method: name of the sparse method.
        name, explanation, citation: as in `Pitfall`.
        keys: from the arguments, the sizes of b, h, l and s, and the setting to the keys that are read instead.
        needs: as in `Steps`.
    """

    def within_mask(self: SparseReference) -> Array:
        return keys(self.given, self.sizes, self.setting)

    _declare(method, name, explanation, citation, f"wrong and ({needs})", {"within_mask": within_mask})


def weight_mistake(
    method: str, name: str, explanation: str, citation: str, count: Callable[[Given, Sizes], Array], needs: str = "True"
) -> None:
    """Declare a mistake in which some keys count more than once; ``count`` tells how often, broadcastable to (B, Hq, Lq, Lk)."""

    def exponentials(self: SparseReference, scores: Array, shift: Array) -> Array:
        return Reference.exponentials(self, scores, shift) * self.dtype.type(1) * count(self.given, self.sizes).astype(self.dtype)

    _declare(method, name, explanation, citation, needs, {"exponentials": exponentials})


def padding_mistake(
    method: str, name: str, explanation: str, citation: str, padded: Callable[[Given, Sizes], Array], needs: str = "True"
) -> None:
    """Declare that zero keys with zero values take part: they enlarge the denominator alone.

    Args:
        method, name, explanation, citation, needs: as for `key_mistake`.
        padded: from the arguments and the sizes to how many such keys each query reads, broadcastable to (B, Hq, Lq, 1).
    """

    def maximum(self: SparseReference, scores: Array, sink: Array) -> Array:
        found, some = Reference.maximum(self, scores, sink), padded(self.given, self.sizes) > 0
        return np.where(some, np.maximum(found, 0), found)

    def total(self: SparseReference, weights: Array, sink: Array, shift: Array) -> Array:
        zeros = padded(self.given, self.sizes).astype(self.dtype) * np.exp(-shift)
        return Reference.total(self, weights, sink, shift) + zeros

    _declare(method, name, explanation, citation, needs, {"maximum": maximum, "total": total})


def _declare(method: str, name: str, explanation: str, citation: str, needs: str, steps: Mapping[str, Any]) -> None:
    facts = {"name": name, "explanation": explanation, "citation": citation, "needs": needs, "methods": (method,)}
    type(f"{method}: {name}", (SPARSE[method],), {**facts, **steps})


for _method, _reference in SPARSE.items():
    declare_dense(_reference, _method, DENSE_MISTAKES)
