"""Attention by a polynomial in place of the exponential: the Chebyshev interpolant.

Trefethen 2019, Approximation Theory and Approximation Practice, extended edition, chapters 3 (interpolants) and 8 (convergence);
Clenshaw 1955, Math. Comp. 9, 118. Every function runs on float64 arrays, on `Bounded` arrays and on Arb balls.

Shapes: B batch, H heads, Lq and Lk lengths, D query/key width, Dv value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.bounded import Bounded
from oracle.readings.chebyshev import NODE_ROUNDINGS, chebyshev_sum, clipped_to, interpolation_coefficients
from oracle.readings.contract import EXP_ROUNDOFFS
from oracle.readings.features import as_matrix, lifted
from oracle.readings.ops import number

__all__ = ["chebyshev_attention", "interpolated_exponential"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings


def interpolated_exponential(x: Array, degree: int, domain: tuple[float, float], nodes: str = "roots") -> Array:
    """The Chebyshev interpolant of exp of a degree on a domain, at x clipped to it; elementwise."""
    low, high = (lifted(np.asarray(end), x) for end in domain)
    coefficients = interpolation_coefficients(np.exp, degree, domain, nodes, x)
    middle, half = _rounded((low + high) / 2, domain, x), _rounded((high - low) / 2, domain, x)
    largest = max(abs(domain[0]), abs(domain[1]))
    return chebyshev_sum(coefficients, (clipped_to(x, domain) - middle) / half, spread=NODE_ROUNDINGS * largest + EXP_ROUNDOFFS)


def _rounded(number: np.ndarray, domain: tuple[float, float], like: Array) -> Array:
    """A number that a program computes from the ends of the domain."""
    if not isinstance(like, Bounded):
        return number
    return Bounded(number, np.asarray(like.contract.unit_roundoff * (abs(domain[0]) + abs(domain[1]))), like.contract)


@method(
    source="Trefethen 2019, chapters 3 and 8 (Chebyshev interpolants); Vaswani et al. 2017, eq. 1, arXiv:1706.03762",
    shapes="q: b h l d, k: b h s d, v: b h s e -> b h l e",
    options={"degree": "degree", "domain": "interval", "scale": "real"},
    conventions={"nodes": ("roots", "extrema")},
    tunables=("block_q", "block_k"),
    cost="b * h * l * s",
)
def chebyshev_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    degree: int,
    domain: tuple[float, float],
    scale: float | None = None,
    nodes: str = "roots",
) -> Array:
    """Attention whose weights are p(logit) / sum p(logit), p the Chebyshev interpolant of exp on a domain.

    p is the polynomial of the degree that agrees with exp at the degree + 1 Chebyshev points of the domain. Logits beyond the domain
    count as its nearer end. There is no maximum to subtract; outside the range in which p resembles exp it may be negative.

    Args:
        q: queries (B, H, Lq, D).
        k: keys (B, H, Lk, D).
        v: values (B, H, Lk, Dv).
        degree: of the polynomial, at least 0.
        domain: (low, high), low < high.
        scale: of the logits; 1 / sqrt(D) by default.
        nodes: the points, ``roots`` of the Chebyshev polynomial of degree + 1 (as `numpy.polynomial.chebyshev.chebinterpolate` has them)
            or ``extrema`` of the one of the degree, the ends of the domain among them.

    Returns:
        (B, H, Lq, Dv); zeros where there are no keys. Where the weights add up to zero, anything goes.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown, missing or out of range.
    """
    scale = 1 / np.sqrt(number(max(q.shape[-1], 1), like=q)) if scale is None else scale
    logits = np.matmul(q, np.swapaxes(k, -1, -2)) * scale
    weights = as_matrix(interpolated_exponential(logits, int(degree), (float(domain[0]), float(domain[1])), nodes))
    if k.shape[-2] == 0:
        return np.matmul(weights, v)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.matmul(weights, v) / np.sum(weights, axis=-1, keepdims=True)
