"""What the terms of a sum look like to a machine that adds them: which count, which are absorbed, which round alike.

Adding x to a partial sum rounds x to a multiple of that sum's spacing, so the error is a function of x modulo the
spacing. Errors are independent, and average out, only where the terms are larger than the spacing and scattered over
more than one of them. Two kinds of terms are not, however random they look at their own size:

* terms smaller than a rounding of the whole are lost entirely: one large term and thousands of tiny ones (a softmax
  with one large logit) lose them all, and all in the same direction;
* terms that differ by less than the spacing (equal or nearly equal logits) all round the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oracle.readings.contract import LAMBDA, PrecisionContract

__all__ = ["ProductTerms", "Terms", "product_terms", "terms_of"]

# Enough elements of a row to see which share of its terms lie close together.
SAMPLE = 32

# Terms scattered over two spacings of the sum, four unit roundoffs of it, are taken as independent.
SCATTER = 4.0

# In rows this short the worst case is no larger than the likely one.
SHORT = int(LAMBDA**2)


@dataclass(frozen=True)
class Terms:
    """The terms of sums along the last axis of an array; every attribute is (...,), without that axis.

    Attributes:
        total: sum of magnitudes.
        rounding: terms up to this size are taken as lost.
        count: how many are not zero.
        tiny: how many of those are not larger than ``rounding``.
        alike: share of the others that round like a neighbour in size.
        alike_mass: share of the total that those hold.
        cast_mass: share of the total held by terms that a rounding to the operand format rounds like a neighbour.
        typical: the median of those that are not zero; inf where not looked for.
    """

    total: np.ndarray
    rounding: np.ndarray
    count: np.ndarray
    tiny: np.ndarray
    alike: np.ndarray
    alike_mass: np.ndarray
    cast_mass: np.ndarray
    typical: np.ndarray

    @property
    def large(self) -> np.ndarray:
        """How many terms are not tiny."""
        return self.count - self.tiny


def terms_of(magnitudes: np.ndarray, contract: PrecisionContract, operand: float = 0.0, reach: np.ndarray | float = 1.0) -> Terms:
    """Describe the terms of sums over the last axis, (..., n).

    Args:
        operand: unit roundoff of the format to which the terms are rounded first; 0 for none.
        reach: how many roundings of the total are tiny.
    """
    total = magnitudes.sum(axis=-1)
    rounding = contract.unit_roundoff * reach * total
    length = magnitudes.shape[-1]
    count = np.full_like(total, length) if magnitudes.min(initial=1.0) > 0 else _count(magnitudes > 0)
    tiny = count - _count(magnitudes > rounding[..., None])
    if length <= SHORT:
        ones = np.ones_like(total)
        return Terms(total, rounding, count, tiny, ones, ones, ones, ones * np.inf)
    sample = _sample(magnitudes)
    large, steps = sample > rounding[..., None], np.diff(sample, axis=-1)
    per_mass = length / sample.shape[-1] / np.where(total > 0, total, np.inf)

    def mass(close: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a total that overflows says nothing: all of it may round alike
            share = np.where(close, sample[..., 1:], 0.0).sum(axis=-1) * per_mass
        return np.minimum(np.nan_to_num(share, nan=1.0), 1.0)

    # Terms that fill fewer than `SCATTER` roundings lie, on average, closer than that many over the sample's size.
    scatter = SCATTER / sample.shape[-1]
    close = (steps <= rounding[..., None] * scatter) & large[..., :-1]
    alike = _count(close) / np.maximum(_count(large) - 1, 1)
    cast_mass = mass(steps <= sample[..., 1:] * (operand * scatter)) if operand else np.zeros_like(total)
    return Terms(total, rounding, count, tiny, alike, mass(close), cast_mass, _median(sample))


def tiny_terms(magnitudes: np.ndarray, terms: Terms) -> np.ndarray:
    """The magnitudes that `Terms.tiny` counts, zero elsewhere."""
    return magnitudes * (magnitudes <= terms.rounding[..., None])


def _count(chosen: np.ndarray) -> np.ndarray:
    return chosen.view(np.uint8).sum(axis=-1, dtype=np.uint32).astype(np.float64)


def _sample(rows: np.ndarray) -> np.ndarray:
    step = max(1, rows.shape[-1] // SAMPLE)
    step += step > 1 and step % 2 == 0  # an odd step does not fall into the rhythm of a tile
    return np.sort(rows[..., ::step], axis=-1)


def _median(sample: np.ndarray) -> np.ndarray:
    zeros, size = (sample == 0).sum(axis=-1, keepdims=True), sample.shape[-1]
    middle = np.take_along_axis(sample, np.minimum((zeros + size) // 2, size - 1), axis=-1)
    return np.where(middle > 0, middle, np.inf)[..., 0]


@dataclass(frozen=True)
class ProductTerms:
    """The terms of the inner products in a matrix product, |left| (..., L, n) times |right| (..., n, N).

    Attributes:
        rows: of the left factors.
        dependent: how many terms may round in the same direction, (..., L, 1) or (..., L, N).
        magnitude: |left| @ |right|, if it was needed.
        lost: what tiny terms may lose on top of that, (..., L, N) or 0.
    """

    rows: Terms
    dependent: np.ndarray
    magnitude: np.ndarray | None = None
    lost: np.ndarray | float = 0.0


def product_terms(left: np.ndarray, right: np.ndarray, contract: PrecisionContract, operand: float = 0.0) -> ProductTerms:
    """Describe the terms of ``left @ right``, both non-negative; ``operand``: as for `terms_of`, of the left factors.

    A term is tiny if its left factor (in attention a weight, which varies over many magnitudes) is, next to a rounding of
    the row's sum; a little further if the row's sum is made of larger values than usual. Terms that are tiny because of an
    unusually large value in ``right`` are counted by column.
    """
    if left.shape[-1] <= SHORT:
        rows = terms_of(left, contract, operand)
        return ProductTerms(rows, rows.count[..., None])
    few = LAMBDA * np.sqrt(left.shape[-1]) / 4  # too few to matter: they are counted as dependent without more ado
    columns = terms_of(np.swapaxes(right, -1, -2), contract)
    largest = right.max(axis=-2)
    if columns.tiny.max() > few:  # a huge value that no row reads makes no other one tiny
        read = right * np.swapaxes(left.any(axis=-2, keepdims=True), -1, -2)
        columns, largest = terms_of(np.swapaxes(read, -1, -2), contract), read.max(axis=-2)
    reach = max(1.0, float((largest / columns.typical).max()))
    rows = terms_of(left, contract, operand, reach)
    magnitude, lost, tiny = None, 0.0, rows.tiny
    if tiny.max() > few:
        magnitude = np.matmul(left, right)
        usual = (magnitude / columns.typical[..., None, :]).max(axis=-1) / np.where(rows.total > 0, rows.total, 1.0)
        rows = terms_of(left, contract, operand, np.clip(usual, 1.0, reach))
        rounding = (contract.unit_roundoff * rows.tiny)[..., None] * magnitude
        lost, tiny = np.minimum(np.matmul(tiny_terms(left, rows), right), rounding), np.zeros(())
    alike = (rows.alike * rows.large)[..., None]
    if alike.max() > few:
        # Unlike values tell the terms apart, unless their weights are so small that even those differences are.
        weighty = (rows.alike_mass > rows.alike / 4)[..., None]
        by_column = columns.alike[..., None, :] * rows.large[..., None]
        alike = np.where(weighty, np.minimum(alike, by_column), alike)
    by_column = columns.tiny.max()
    if by_column > few:
        by_column = columns.tiny[..., None, :]
    return ProductTerms(rows, alike + tiny[..., None] + by_column, magnitude, lost)
