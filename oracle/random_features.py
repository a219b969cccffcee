"""Attention by positive random features: FAVOR+ of Performers.

Choromanski et al. 2021, arXiv:2009.14794, lemma 1 and eq. 7: exp(q.k / sqrt(D)) is the mean of exp(w.x - |x|^2/2) exp(w.y - |y|^2/2)
over normal w, where x = q / D^(1/4) and y = k / D^(1/4). The features of a projection that is given make this linear attention.

Shapes: B batch, H heads, L length of queries and of keys, D query/key width, Dv value width, M features.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.linear import TUNABLES, weighed_sums
from oracle.readings.bounded import Bounded
from oracle.readings.features import as_matrix, guarded_quotient, shifted_features, values_of
from oracle.readings.ops import number

__all__ = ["performer_attention"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

# Features may be stored in float16 under a factor up to exp(this) smaller than the one that is best for them.
FARTHEST_FACTOR = 20.0


def exponents(x: Array, projection: Array) -> tuple[Array, np.ndarray]:
    """Logarithms of the features of queries or keys, (B, H, L, M), but for 1/sqrt(M), and the projected parts of them alone."""
    width, count = x.shape[-1], projection.shape[0]
    if width == 0 or count == 0:
        return np.matmul(x, np.swapaxes(projection, 0, 1)), np.zeros((*x.shape[:-1], count))
    scaled = as_matrix(x / np.sqrt(np.sqrt(number(width, like=x))))
    projected = np.matmul(scaled, np.swapaxes(projection, 0, 1))
    return projected - np.sum(scaled * scaled, axis=-1, keepdims=True) / 2, values_of(projected)


def positive_features(logarithms: Array, axes: tuple[int, ...], farthest: np.ndarray) -> tuple[Array, np.ndarray]:
    """Features under a common factor that cancels, and the logarithm of that factor.

    Args:
        logarithms: of the features, (B, H, L, M).
        axes: those that have the factor in common.
        farthest: logarithms of the largest factor that a kernel may leave out.
    """
    made, shift = shifted_features(logarithms, axes)
    made = made / np.sqrt(number(logarithms.shape[-1], like=logarithms))
    if isinstance(made, Bounded) and made.contract.operand:
        beyond = np.exp(np.clip(np.maximum(farthest, 0.0) - shift, 0.0, FARTHEST_FACTOR))
        made = Bounded(made.value, made.error + made.contract.operand_spacing * beyond, made.contract)
    return made, shift


@method(
    source="Choromanski et al. 2021, lemma 1 and eq. 7, arXiv:2009.14794",
    shapes="q: b h l d, k: b h l d, v: b h l e, projection: m d -> b h l e",
    where={"m > 0": "there must be a feature"},
    options={"causal": "flag", "eps": "nonnegative"},
    tunables=TUNABLES,
    cost="b * h * l * (l + m)",
)
def performer_attention(q: Array, k: Array, v: Array, projection: Array, *, causal: bool = False, eps: float = 1e-6) -> Array:
    """Linear attention with phi(x)_m = exp(w_m.x - |x|^2/2) / sqrt(M), x = q / D^(1/4) or k / D^(1/4).

    out_i = sum_j phi(q_i).phi(k_j) v_j / (sum_j phi(q_i).phi(k_j) + eps).

    A kernel may subtract a stabiliser from the exponents before it takes exponentials: one for each query, and one for all
    keys; both cancel, and without them exponentials of large numbers overflow. What it then adds eps to is smaller by
    exp(stabilisers), so that its eps weighs more. This is meant as much as the formula as it stands: the eps of a kernel may
    weigh anything between eps and eps * exp(stabilisers), the stabiliser of a query being the maximum over its features of
    w.x - |x|^2/2 or of w.x, or over all queries of the former, the one of the keys the maximum of either over all keys of a head
    or of the call. The value is that of the formula; the budget takes in the others. Where the sum of weights is far above
    eps, as it is for inputs of moderate size, they are the same.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        v: values (B, H, L, Dv).
        projection: rows w_m (M, D), the same for all heads.
        causal: query i reads the keys j <= i only.
        eps: added to the denominator, once.

    Returns:
        (B, H, L, Dv). Where the denominator is zero, anything goes.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range.
    """
    of_queries, projected_queries = exponents(q, projection)
    of_keys, projected_keys = exponents(k, projection)
    farthest_query = np.maximum(projected_queries.max(axis=-1, keepdims=True), values_of(of_queries).max(initial=-np.inf))
    farthest_key = projected_keys.max(initial=-np.inf)
    query_features, query_shift = positive_features(of_queries, (-1,), farthest_query)
    key_features, key_shift = positive_features(of_keys, (-2, -1), farthest_key)
    weighed, total = weighed_sums(query_features, key_features, v, causal=causal)
    smallest, largest = query_shift + key_shift, farthest_query + farthest_key
    return guarded_quotient(weighed, total, eps, (query_shift, key_shift), (smallest, largest))
