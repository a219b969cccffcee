"""Chebyshev attention in small steps, and the mistakes in them.

Shapes: B batch, H heads, Lq and Lk lengths, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps

__all__ = ["Chebyshev"]

TREFETHEN = "Trefethen 2019, chapter 3, Approximation Theory and Approximation Practice"
SERIES = "Trefethen 2019, chapter 4, Approximation Theory and Approximation Practice"
CLENSHAW = "Clenshaw 1955, Math. Comp. 9, 118"
SOFTMAX = "Vaswani et al. 2017, eq. 1, arXiv:1706.03762"


class Chebyshev(Steps):
    """Chebyshev attention, as the specification means it."""

    methods = ("chebyshev_attention",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.q, self.k, self.v = (arguments[name] for name in ("q", "k", "v"))
        self.degree, (self.low, self.high) = int(arguments["degree"]), map(float, arguments["domain"])
        self.scale, self.nodes = arguments.get("scale"), arguments.get("nodes", "roots")
        self.keys, self.width = self.k.shape[2], self.q.shape[3]

    def facts(self) -> dict[str, Any]:
        """Dimensions and options by name, and what follows from them."""
        dims = dict(zip("bhld", self.q.shape, strict=True))
        return {
            **dims, "s": self.keys, "e": self.v.shape[3], "degree": self.degree, "scale": self.scale, "factor": Chebyshev.factor(self),
            "low": self.low, "high": self.high, "nodes": self.nodes,
            "half": self.setting.half, "dtype": self.setting.dtype,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q.size > 0 and self.v.size > 0 and super().applies()

    def factor(self) -> float:
        """What the products are multiplied by."""
        return 1 / sqrt(max(self.width, 1)) if self.scale is None else float(self.scale)

    def logits(self) -> Array:
        """(B, H, Lq, Lk)."""
        return self.q @ self.k.swapaxes(2, 3) * self.dtype.type(self.factor())

    def clipped(self, logits: Array) -> Array:
        """Logits within the domain."""
        return np.clip(logits, self.dtype.type(self.low), self.dtype.type(self.high))

    def unit(self, logits: Array) -> Array:
        """The domain mapped to [-1, 1]."""
        return (logits - self.dtype.type((self.low + self.high) / 2)) / self.dtype.type((self.high - self.low) / 2)

    def order(self) -> int:
        """The degree of the polynomial."""
        return self.degree

    def function(self, t: np.ndarray) -> np.ndarray:
        """What is interpolated, on [-1, 1], in float64."""
        return np.exp((self.low + self.high) / 2 + (self.high - self.low) / 2 * t)

    def angles(self) -> np.ndarray:
        """Of the nodes."""
        order = self.order()
        if self.nodes == "extrema" and order:
            return np.pi * np.arange(order + 1) / order
        return np.pi * (2 * np.arange(order + 1) + 1) / (2 * order + 2)

    def coefficients(self) -> np.ndarray:
        """c_0 to c_n, in float64."""
        angles, order = self.angles(), np.arange(self.order() + 1)
        # The interpolation conditions, solved: the nodes are few and the cosines well conditioned.
        return np.linalg.solve(np.cos(np.outer(angles, order)), self.function(np.cos(angles)))

    def summed(self, coefficients: np.ndarray, t: Array) -> Array:
        """sum_k c_k T_k(t) by Clenshaw's recurrence."""
        after, latest = np.zeros_like(t), np.zeros_like(t)
        for coefficient in coefficients[:0:-1].astype(self.dtype):
            after, latest = latest, coefficient + 2 * t * latest - after
        return self.dtype.type(coefficients[0]) + t * latest - after

    def weights(self) -> Array:
        """The polynomial of the logits."""
        return self.summed(self.coefficients(), self.unit(self.clipped(self.logits())))

    def total(self, weights: Array) -> Array:
        """The denominator."""
        return weights.sum(axis=-1, keepdims=True)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        weights = self.weights()
        if self.keys == 0:
            return ((weights @ self.v).astype(self.dtype),)
        return ((weights @ self.v / self.total(weights)).astype(self.dtype),)


class NotClipped(Chebyshev):
    name = "logits-not-clipped"
    explanation = "The polynomial is evaluated beyond its domain, where it grows without bound."
    citation = TREFETHEN
    needs = "degree > 0"

    def clipped(self, logits: Array) -> Array:
        return logits


class ClippedBeforeScale(Chebyshev):
    name = "logits-clipped-before-scale"
    explanation = "The products are clipped to the domain before they are scaled."
    citation = SOFTMAX
    needs = "degree > 0 and factor != 1"

    def logits(self) -> Array:
        return super().clipped(self.q @ self.k.swapaxes(2, 3)) * self.dtype.type(self.factor())


class ClippedToUnit(Chebyshev):
    name = "logits-clipped-to-unit-interval"
    explanation = "The logits are clipped to [-1, 1] and not mapped: the domain is ignored where they are evaluated."
    citation = TREFETHEN
    needs = "degree > 0 and (low != -1 or high != 1)"

    def clipped(self, logits: Array) -> Array:
        return np.clip(logits, -1, 1)

    def unit(self, logits: Array) -> Array:
        return logits


class MappedToHalf(Chebyshev):
    name = "domain-mapped-to-zero-to-one"
    explanation = "The domain is mapped to [0, 1] instead of [-1, 1]."
    citation = TREFETHEN
    needs = "degree > 0"

    def unit(self, logits: Array) -> Array:
        return (super().unit(logits) + 1) / 2


class MappedAsSymmetric(Chebyshev):
    name = "domain-taken-as-symmetric"
    explanation = "Logits are divided by half the width of the domain, but its middle is not subtracted."
    citation = TREFETHEN
    needs = "degree > 0 and low + high != 0"

    def unit(self, logits: Array) -> Array:
        return np.clip(logits / self.dtype.type((self.high - self.low) / 2), -1, 1)


class MappedFlipped(Chebyshev):
    name = "domain-flipped"
    explanation = "The low end of the domain is mapped to 1 and the high end to -1: small logits get large weights."
    citation = TREFETHEN
    needs = "degree > 0"

    def unit(self, logits: Array) -> Array:
        return -super().unit(logits)


class NodesOfUnit(Chebyshev):
    name = "interpolated-on-unit-interval"
    explanation = "exp is interpolated on [-1, 1], not on the domain to which the logits are mapped."
    citation = TREFETHEN
    needs = "degree > 0 and (low != -1 or high != 1)"

    def function(self, t: np.ndarray) -> np.ndarray:
        return np.exp(t)


class FirstDoubled(Chebyshev):
    name = "first-coefficient-not-halved"
    explanation = "The half of c_0 is forgotten, as the formula for the other coefficients gives it twice."
    citation = CLENSHAW

    def coefficients(self) -> np.ndarray:
        made = super().coefficients().copy()
        made[0] *= 2
        return made

    needs = "degree > 0"


class FirstQuartered(Chebyshev):
    name = "first-coefficient-halved-twice"
    explanation = "c_0 is halved where it is computed and again where the sum is taken."
    citation = CLENSHAW
    needs = "degree > 0"

    def coefficients(self) -> np.ndarray:
        made = super().coefficients().copy()
        made[0] /= 2
        return made


class DegreeShort(Chebyshev):
    name = "degree-one-short"
    explanation = "The polynomial has `degree` coefficients and nodes, so its degree is one less."
    citation = TREFETHEN
    needs = "degree > 0"

    def order(self) -> int:
        return self.degree - 1


class DegreeLong(Chebyshev):
    name = "degree-one-more"
    explanation = "The degree of the polynomial is one more than asked for."
    citation = TREFETHEN

    def order(self) -> int:
        return self.degree + 1


class LastDropped(Chebyshev):
    name = "last-coefficient-dropped"
    explanation = "The sum leaves out the coefficient of the highest degree."
    citation = CLENSHAW
    needs = "degree > 0"

    def coefficients(self) -> np.ndarray:
        return super().coefficients()[:-1]


class Series(Chebyshev):
    name = "truncated-series"
    explanation = "The coefficients are those of the infinite Chebyshev series, cut off: near the interpolant, but not it."
    citation = SERIES

    def coefficients(self) -> np.ndarray:
        many = np.pi * (2 * np.arange(64 + self.degree) + 1) / (2 * (64 + self.degree))
        cosines = np.cos(np.outer(np.arange(self.degree + 1), many))
        made = 2 * (cosines * self.function(np.cos(many))).mean(axis=1)
        made[0] /= 2
        return made


class Taylor(Chebyshev):
    name = "taylor-polynomial"
    explanation = "exp is replaced by its Taylor polynomial around the middle of the domain."
    citation = TREFETHEN

    def summed(self, coefficients: np.ndarray, t: Array) -> Array:
        half, term = self.dtype.type((self.high - self.low) / 2), np.full_like(t, np.exp((self.low + self.high) / 2))
        total = term.copy()
        for power in range(1, self.degree + 1):
            term = term * half * t / power
            total = total + term
        return total


class EquallySpaced(Chebyshev):
    name = "equally-spaced-nodes"
    explanation = "The polynomial interpolates at equally spaced points instead of Chebyshev points."
    citation = TREFETHEN
    needs = "degree > 1 and degree < 20"

    def angles(self) -> np.ndarray:
        return np.arccos(np.linspace(1, -1, self.order() + 1))


class OtherNodes(Chebyshev):
    name = "nodes-of-the-other-kind"
    explanation = "The polynomial interpolates at the roots where the extrema are declared, or the other way round."
    citation = TREFETHEN
    needs = "degree > 0"

    def angles(self) -> np.ndarray:
        self.nodes = "roots" if self.nodes == "extrema" else "extrema"
        made = super().angles()
        self.nodes = "roots" if self.nodes == "extrema" else "extrema"
        return made


class Powers(Chebyshev):
    name = "coefficients-taken-for-powers"
    explanation = "Chebyshev coefficients weigh powers of t instead of Chebyshev polynomials."
    citation = CLENSHAW
    needs = "degree > 1"

    def summed(self, coefficients: np.ndarray, t: Array) -> Array:
        total = np.zeros_like(t)
        for coefficient in coefficients[::-1].astype(self.dtype):
            total = total * t + coefficient
        return total


class RecurrenceWithoutTwo(Chebyshev):
    name = "recurrence-without-two"
    explanation = "T_{k+1} = t T_k - T_{k-1}: the factor 2 is missing."
    citation = CLENSHAW
    needs = "degree > 1"

    def summed(self, coefficients: np.ndarray, t: Array) -> Array:
        before, latest = np.ones_like(t), t
        total = np.full_like(t, coefficients[0])
        for coefficient in coefficients[1:].astype(self.dtype):
            total = total + coefficient * latest
            before, latest = latest, t * latest - before
        return total


class SecondKind(Chebyshev):
    name = "polynomials-of-second-kind"
    explanation = "The recurrence begins with U_1 = 2 t instead of T_1 = t, so that the sum is one of U_k."
    citation = CLENSHAW
    needs = "degree > 0"

    def summed(self, coefficients: np.ndarray, t: Array) -> Array:
        after, latest = np.zeros_like(t), np.zeros_like(t)
        for coefficient in coefficients[::-1].astype(self.dtype):
            after, latest = latest, coefficient + 2 * t * latest - after
        return latest
