"""Linear attention: the weight of a key is an inner product of features, not an exponential of a logit.

Katharopoulos et al. 2020, arXiv:2006.16236, eq. 4-7 and 9-11 (causal). The sums over keys may be taken in any order: all weights at
once (parallel), a state of D x Dv numbers carried along (recurrent), or chunks of both. Every function runs on float64
arrays, on `Bounded` arrays and on Arb balls.

Shapes: B batch, H heads, L length of queries and of keys, D query/key width, Dv value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.bounded import Bounded
from oracle.readings.features import any_order, as_matrix, constant, is_positive, sigmoid, within_range
from oracle.readings.ops import as_operand

__all__ = ["FEATURE_MAPS", "features", "linear_attention", "scalar_gated_linear_attention", "weighed_sums"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

# Maps that are nowhere negative. The identity and tanh are not: weights of either sign cancel, and so may the denominator.
FEATURE_MAPS = ("elu+1", "relu+1", "relu", "exp")
TUNABLES = ("chunk_size",)


def features(x: Array, feature_map: str) -> Array:
    """The features of queries or keys, of the shape of x, none of them negative.

    ``elu+1``: x + 1 for x > 0, else exp(x); ``relu+1``: max(x, 0) + 1; ``relu``: max(x, 0); ``exp``: exp(x).
    """
    if feature_map == "exp":
        return np.exp(x)
    positive = is_positive(x)
    if feature_map == "elu+1":
        return np.where(positive, x + 1, np.exp(np.where(positive, 0 * x, x)))
    rectified = np.where(positive, x, 0 * x)
    return rectified + 1 if feature_map == "relu+1" else rectified


def weighed_sums(queries: Array, keys: Array, v: Array, *, causal: bool) -> tuple[Array, Array]:
    """Numerator and denominator of linear attention from features of queries and keys.

    Args:
        queries: features (B, H, L, M).
        keys: features (B, H, L, M).
        v: values (B, H, L, Dv).
        causal: query i reads the keys j <= i only.

    Returns:
        sum_j (phi(q_i) . phi(k_j)) v_j (B, H, L, Dv), and the sum of the weights (B, H, L, 1).
    """
    # Features that overflow leave no number behind, and no budget.
    with np.errstate(over="ignore", invalid="ignore"):
        queries, keys = as_matrix(queries), as_matrix(keys)
        transposed = np.swapaxes(keys, -1, -2)
        weights = np.matmul(queries, transposed)
        if causal:
            weights = np.where(np.tri(weights.shape[-1], dtype=bool), weights, 0.0)
        weights = as_operand(weights)
        weights = within_range(weights, weights)
        weighed, total = np.matmul(weights, v), np.sum(weights, axis=-1, keepdims=True)
        if isinstance(v, Bounded):
            weighed, total = _by_state(queries, keys, v, weighed, total, causal)
    return weighed, total


def _by_state(queries: Bounded, keys: Bounded, v: Bounded, weighed: Bounded, total: Bounded, causal: bool) -> tuple[Bounded, Bounded]:
    """The same sums with the errors of a kernel that carries sums over keys along instead of weights, where those are larger."""
    transposed: Any = np.swapaxes(keys, -1, -2)  # type: ignore[arg-type]
    state, sizes = np.matmul(transposed, v), np.swapaxes(np.sum(keys, axis=-2, keepdims=True), -1, -2)  # (B, H, M, Dv), (B, H, M, 1)
    if not causal:
        weighed = any_order(weighed, np.matmul(queries, as_matrix(state)))
        total = any_order(total, np.matmul(queries, as_matrix(sizes)))
    # On its way to the end the state may be as large as the sum of the magnitudes of its terms.
    largest = np.matmul(np.abs(transposed.value) + transposed.full_error, np.abs(v.value)).max(axis=-2, keepdims=True, initial=0.0)
    size = (sizes.value + sizes.full_error).max(axis=-2, keepdims=True, initial=0.0)
    return within_range(weighed, largest, size), within_range(total, size)


@method(
    source="Katharopoulos et al. 2020, eq. 4-7, causal: eq. 9-11, arXiv:2006.16236",
    shapes="q: b h l d, k: b h l d, v: b h l e -> b h l e",
    options={"feature_map": FEATURE_MAPS, "causal": "flag", "eps": "nonnegative"},
    tunables=TUNABLES,
    cost="b * h * l * l",
)
def linear_attention(q: Array, k: Array, v: Array, *, feature_map: str = "elu+1", causal: bool = False, eps: float = 1e-6) -> Array:
    """Linear attention: sum_j phi(q_i).phi(k_j) v_j / (sum_j phi(q_i).phi(k_j) + eps), without a scale.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        v: values (B, H, L, Dv).
        feature_map: phi, elementwise: ``elu+1`` is x + 1 for x > 0 and exp(x) else, ``relu+1`` max(x, 0) + 1, ``relu``
            max(x, 0), ``exp`` exp(x). Maps that may be negative, such as the identity, are refused.
        causal: query i reads the keys j <= i only.
        eps: added to the denominator, once.

    Returns:
        (B, H, L, Dv). Where the denominator is zero, which takes eps = 0 or numbers that underflow, anything goes.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range.
    """
    weighed, total = weighed_sums(features(q, feature_map), features(k, feature_map), v, causal=causal)
    with np.errstate(divide="ignore", invalid="ignore"):
        return weighed / (total + constant(eps, like=total))


@method(
    source="Katharopoulos et al. 2020, eq. 4-7, arXiv:2006.16236, with a scalar gate for each key: Yang et al. 2023, section 4, "
    "arXiv:2312.06635",
    shapes="q: b h l d, k: b h l d, v: b h l e -> b h l e",
    options={"feature_map": FEATURE_MAPS, "eps": "nonnegative"},
    tunables=TUNABLES,
    cost="b * h * l * l",
)
def scalar_gated_linear_attention(q: Array, k: Array, v: Array, *, feature_map: str = "relu+1", eps: float = 1e-6) -> Array:
    """Linear attention in which each key weighs g_j = sigmoid(sum_d k_jd), in the numerator and in the denominator.

    out_i = sum_j phi(q_i).phi(k_j) g_j v_j / (sum_j phi(q_i).phi(k_j) g_j + eps); every query reads every key.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D); the gate is of the keys themselves, not of their features.
        v: values (B, H, L, Dv).
        feature_map: phi, as for `linear_attention`.
        eps: added to the denominator, once.

    Returns:
        (B, H, L, Dv). Where the denominator is zero, anything goes.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range.
    """
    gates = sigmoid(np.sum(k, axis=-1, keepdims=True))  # (B, H, L, 1)
    keys = as_matrix(features(k, feature_map)) * as_matrix(gates)
    weighed, total = weighed_sums(features(q, feature_map), keys, v, causal=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        return weighed / (total + constant(eps, like=total))
