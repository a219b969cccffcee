"""How far a call may be from the exact answer, from norms alone: O(Lq + Lk) work where the budget reading takes O(Lq Lk).

It bounds the budget reading of the oracle from above, rule by rule (`oracle.readings.rules`, `ops`), by putting for every
logit of a row the largest that it can be, and for every sum the worst case of its roundings. With u, p the unit roundoffs
of accumulation and operand, n keys, D the width, and per row Q = |q_i| max_j |k_j| >= |q_i . k_j| (Cauchy-Schwarz):

* a logit has magnitude S = |scale| Q (at most the softcap), plus the largest bias, and an error e of (2 D + 4) u Q |scale|
  and a rounding for each further step: n u is the worst case of a sum (Jeannerod & Rump 2013) and the terms that are lost
  for being tiny cost as much again;
* its weight is then off by a factor exp(E) at most, E = e + 6 u min(2 S, 800) + 4 u S + EXP_ROUNDOFFS u + the rescales;
* numerator and denominator are sums of n weights: each is off by a = (exp(E) - 1)(1 + p)(1 + (2 n + 4) u) + p + (2 n + 4) u
  of the sum of the weights, so the quotient is off by 2 a / (1 - a) times the largest |v|, and two roundings.

Nothing in it is probable rather than certain, except the number of roundings of the rescales, taken as in the budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.readings.contract import PrecisionContract
from oracle.readings.ops import FARTHEST

__all__ = ["Extent", "error_bounds", "per_query_head"]


def error_bounds(method: str, arguments: Mapping[str, Any], contract: PrecisionContract) -> tuple[Extent, ...]:
    """How large each output may be, and how far off before it is rounded to its format.

    Args:
        method: name of the method.
        arguments: by name, with the conventions that are declared.
        contract: to compute under.

    Returns:
        For out (B, H, L, Dv) and, where the method has it, lse (B, H, L).
    """
    given = {
        name: np.asarray(value, dtype=np.float64) if isinstance(value, np.ndarray) and value.dtype != bool else value
        for name, value in arguments.items()
        if value is not None
    }
    with np.errstate(all="ignore"):
        rows = (_merged if "lses" in given else _attended)(given, contract)
        outputs = rows.quotient(contract), rows.logarithm(contract, base_2=given.get("lse_base") == "2")
    return outputs[:1] if method == "attention" else outputs


@dataclass(frozen=True)
class Extent:
    """Of an output: arrays that broadcast to its shape.

    Attributes:
        largest: no exact element has a larger magnitude.
        error: no element is further off; inf where the contract's range may be left or NaN was read.
    """

    largest: np.ndarray
    error: np.ndarray


def per_query_head(x: np.ndarray, heads: int, head_map: str) -> np.ndarray:
    """Repeat what belongs to a key/value head for each query head that reads it: (B, Hkv, ...) -> (B, Hq, ...)."""
    group = heads // x.shape[1]
    return np.tile(x, (1, group, *[1] * (x.ndim - 2))) if head_map == "interleaved" else np.repeat(x, group, axis=1)


@dataclass(frozen=True)
class _Rows:
    """What is known of each row of logits, (B, H, L), and of the values that it weighs.

    Attributes:
        magnitude: no logit is larger.
        error: no logit is further off.
        largest: absolute value, (B, H, 1 or L, Dv).
        keys: how many logits there are, a sink included.
        operand, spacing: unit roundoff and half the spacing of the format that the weights are cast to.
    """

    magnitude: np.ndarray
    error: np.ndarray
    largest: np.ndarray
    keys: int
    operand: float
    spacing: float

    def _total(self, contract: PrecisionContract) -> tuple[np.ndarray, np.ndarray]:
        """Error of the sum of the weights relative to it, and how much too large the weights themselves may be."""
        u = contract.unit_roundoff
        rescales = contract.roundings(self.keys) * (contract.exp_error / u + 2)
        distance = np.minimum(2 * self.magnitude, FARTHEST)
        error = (6 * u * distance + self.error) * (1 + 6 * u) + 4 * u * self.magnitude + contract.exp_error + rescales
        relative = np.maximum(error * (1 + error), np.expm1(error)) + self.keys * (2 * contract.flush + self.spacing)
        roundings = _sum(self.keys, contract) + self.operand
        return relative * (1 + roundings) + roundings + contract.flush, 1 + relative

    def quotient(self, contract: PrecisionContract) -> Extent:
        """Of the weighted mean of the values, (B, H, L, Dv)."""
        total, weights = (part[..., None] for part in self._total(contract))
        flushed = contract.flush * (self.keys + 1 + weights * (1 + total))
        error = (2 * self.largest * total + flushed) / (1 - total)
        if self.keys * contract.accumulate.smallest_normal > 1:  # a reciprocal of the sum may be flushed
            error = error + self.keys * self.largest * (1 + total) * contract.flush
        error = _rounded(error, self.largest, contract, 2)
        in_range = (total < 1) & (self.keys * self.largest * (1 + total) <= contract.accumulate.largest)
        return Extent(self.largest, np.where(in_range, error, np.inf))

    def logarithm(self, contract: PrecisionContract, *, base_2: bool) -> Extent:
        """Of the logarithm of the sum of the weights, (B, H, L)."""
        total, _ = self._total(contract)
        logarithm = math.log(max(self.keys, 1))
        own = contract.exp_error * (1 + logarithm) - np.log1p(-np.minimum(total, 1.0))
        largest = self.magnitude + logarithm
        error = _rounded(_rounded(own, logarithm, contract, 2), largest, contract)
        if base_2:
            largest = largest / math.log(2)
            error = _rounded(error / math.log(2), largest, contract, 2)
        return Extent(largest, np.where(total < 1, error, np.inf))


def _sum(terms: int, contract: PrecisionContract) -> float:
    return (2 * terms + 4) * contract.unit_roundoff + 4 * contract.matmul_input


def _rounded(error: np.ndarray, magnitude: np.ndarray | float, contract: PrecisionContract, roundings: int = 1) -> np.ndarray:
    """The error of a result after its rounding; inf where it may leave the range."""
    unit = math.expm1(roundings * math.log1p(contract.unit_roundoff))
    error = error * (1 + unit) + unit * magnitude + contract.flush
    return np.where(magnitude + error <= contract.accumulate.largest, error, np.inf)


def _attended(given: Mapping[str, Any], contract: PrecisionContract) -> _Rows:
    q, k, v = (given[name] for name in "qkv")
    heads, width, head_map = q.shape[1], q.shape[-1], given.get("head_map", "grouped")
    queries = np.sqrt((q * q).sum(axis=-1))  # (B, H, L)
    longest = np.sqrt((k * k).sum(axis=-1)).max(axis=-1, keepdims=True, initial=0.0)
    keys = per_query_head(longest, heads, head_map)  # (B, H, 1)
    product, relative = queries * keys, _sum(width, contract)
    flushed = math.sqrt(width) * (queries + keys + math.sqrt(width) * contract.flush) * (1 + relative) + width + 1
    error = _in_range(product * relative + contract.flush * flushed, product, contract)
    scale = abs(given.get("scale", 1 / math.sqrt(max(width, 1))))
    magnitude = product * scale
    error = _rounded(error * scale, magnitude, contract)
    steps = [_capped, _biased] if given.get("softcap_order", "before-bias") == "before-bias" else [_biased, _capped]
    for step in steps:
        magnitude, error = step(magnitude, error, given, contract)
    count = k.shape[2]
    if "sinks" in given:
        magnitude = np.maximum(magnitude, np.abs(given["sinks"])[:, None])
        error, count = np.maximum(error, contract.flush), count + 1
    largest = np.abs(v).max(axis=2, keepdims=True, initial=0.0)
    operand, spacing = max(contract.operand, contract.weight), contract.operand_spacing + contract.weight_spacing
    return _Rows(magnitude, error, per_query_head(largest, heads, head_map), count, operand, spacing)


def _in_range(error: np.ndarray, magnitude: np.ndarray, contract: PrecisionContract) -> np.ndarray:
    return np.where(magnitude + error <= contract.accumulate.largest, error, np.inf)


def _capped(
    magnitude: np.ndarray, error: np.ndarray, given: Mapping[str, Any], contract: PrecisionContract
) -> tuple[np.ndarray, np.ndarray]:
    cap = given.get("softcap")
    if cap is None:
        return magnitude, error
    error = _rounded(error / cap, magnitude / cap, contract, 2)
    error = np.where(error < np.inf, np.minimum(error, 2.0) + contract.tanh_error, np.inf) * cap
    magnitude = np.minimum(magnitude, cap)
    return magnitude, _rounded(error, magnitude, contract)


def _biased(
    magnitude: np.ndarray, error: np.ndarray, given: Mapping[str, Any], contract: PrecisionContract
) -> tuple[np.ndarray, np.ndarray]:
    bias = given.get("bias")
    if bias is None:
        return magnitude, error
    magnitude = magnitude + np.abs(bias).max(axis=-1, initial=0.0)
    return magnitude, _rounded(error + contract.flush, magnitude, contract)


def _merged(given: Mapping[str, Any], contract: PrecisionContract) -> _Rows:
    outs, lses = given["outs"], given["lses"]
    magnitude = np.where(lses == -np.inf, 0.0, np.abs(lses)).max(axis=0, initial=0.0)
    error = np.full_like(magnitude, contract.flush)
    if given.get("lse_base") == "2":
        magnitude = magnitude * math.log(2)
        error = _rounded(error, magnitude, contract)
    return _Rows(magnitude, error, np.abs(outs).max(axis=0, initial=0.0), outs.shape[0], 0.0, 0.0)
