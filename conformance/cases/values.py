"""Recipes for the elements of an array: each is a name, a seed and a gain, never a list of numbers.

The structured recipes use numbers of few bits (multiples of 1/8), so that sums of equal terms are exact and the
independence that the probabilistic error bound assumes (Higham & Mary 2019) holds for what remains.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from oracle.formats import Format

__all__ = ["CODED_RECIPES", "DOMAIN_RECIPES", "FLOAT_RECIPES", "SELECTING_GAIN", "Maker", "index", "make_floats"]

Maker = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _length_axis(shape: tuple[int, ...]) -> int:
    """The axis along which rows follow each other: the last but one, where there is one."""
    return max(len(shape) - 2, 0)


def _along(shape: tuple[int, ...], profile: np.ndarray) -> np.ndarray:
    """Spread a profile along the length axis."""
    axis = _length_axis(shape)
    return profile.reshape([-1 if index == axis else 1 for index in range(len(shape))])


def _length(shape: tuple[int, ...]) -> int:
    return shape[_length_axis(shape)] if shape else 1


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal."""
    return rng.standard_normal(shape)


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All zero."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All one."""
    return np.ones(shape)


def index(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The row's number (over 8) in every element: shows which row was read."""
    return np.broadcast_to(_along(shape, np.arange(_length(shape)) / 8), shape).copy()


def equal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All rows alike: every key scores the same."""
    one_row = [1 if axis == _length_axis(shape) else size for axis, size in enumerate(shape)]
    return np.broadcast_to(np.round(rng.standard_normal(one_row) * 8) / 8, shape).copy()


def _trend(rng: np.random.Generator, shape: tuple[int, ...], profile: np.ndarray) -> np.ndarray:
    return rng.standard_normal(shape) * 0.5 + _along(shape, profile)


def rising(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Rows grow by random steps: the running maximum rises tile by tile."""
    return _trend(rng, shape, np.sort(rng.uniform(0, 4, _length(shape))))


def falling(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Rows shrink by random steps: the first tile holds the maximum."""
    return _trend(rng, shape, -np.sort(rng.uniform(0, 4, _length(shape))))


def last(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The last row stands out: the maximum comes with the last key."""
    profile = np.zeros(_length(shape))
    profile[-1:] = 4.0
    return _trend(rng, shape, profile)


def first(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The first row stands out."""
    profile = np.zeros(_length(shape))
    profile[:1] = 4.0
    return _trend(rng, shape, profile)


def after_first(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros in the first row, ones in all others."""
    return np.broadcast_to(_along(shape, 1.0 * (np.arange(_length(shape)) > 0)), shape).copy()


def spike(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One row, anywhere, stands out: almost a one-hot choice of a key."""
    profile = np.zeros(_length(shape))
    if profile.size:
        profile[rng.integers(profile.size)] = 6.0
    return _trend(rng, shape, profile)


def _ages(shape: tuple[int, ...]) -> np.ndarray:
    """How many entries of the first axis, up to 60, stand before each: numbers that every format has."""
    return np.minimum(np.arange(shape[0]), 60.0).reshape(-1, *[1] * (len(shape) - 1))


def oldest(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Along the first axis, where tokens of a cache follow each other, each weighs less than the one before it."""
    return np.broadcast_to(-_ages(shape), shape).copy()


def newest(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The other way round: the last tokens weigh nearly everything."""
    return oldest(rng, shape)[::-1].copy()


def offset(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A large common offset, which a softmax must cancel."""
    return rng.standard_normal(shape) * 0.25 + 6.0


def negative(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The same offset below zero: all logits negative."""
    return rng.standard_normal(shape) * 0.25 - 6.0


def ties(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Rows come in a few exact copies."""
    rows = np.round(rng.standard_normal(shape) * 8) / 8
    axis = _length_axis(shape)
    return np.take(rows, rng.integers(0, min(3, max(_length(shape), 1)), _length(shape)), axis=axis) if _length(shape) else rows


def sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Mostly zeros, of either sign."""
    return np.where(rng.random(shape) < 0.2, rng.standard_normal(shape), np.where(rng.random(shape) < 0.5, 0.0, -0.0))


def spread(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Magnitudes over six decades."""
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 2, shape)


def subnormal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers around the smallest normal float32."""
    return rng.standard_normal(shape) * 2.0**-127


def empty_parts(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal, with -inf for parts that hold no key; in some rows all parts are empty."""
    hidden = (rng.random(shape) < 0.3) | (rng.random(shape[1:]) < 0.15)
    return np.where(hidden, -np.inf, rng.standard_normal(shape))


def log_gates(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Logarithms of decays as a gate's sigmoid gives them."""
    return -np.logaddexp(0.0, -2.0 * rng.standard_normal(shape) - 1.0)


def slow_gates(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Logarithms of decays close to 1."""
    return -rng.uniform(0.0, 0.02, shape)


def strong_gates(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Logarithms of decays down to 1e-30, whose sums overflow an exponential."""
    return -rng.uniform(0.0, 70.0, shape)


def mixed_gates(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Mostly slow, now and then one that forgets everything."""
    return np.where(rng.random(shape) < 0.1, -rng.uniform(20.0, 300.0, shape), -rng.uniform(0.0, 0.1, shape))


def fractions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform between 0 and 1."""
    return rng.random(shape)


def corners(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """0 and 1."""
    return rng.integers(0, 2, shape).astype(np.float64)


def decays(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """1 - 2^-x, x from 1 to 9: memories of 2 to 500 steps (Sun et al. 2023, arXiv:2307.08621, section 2)."""
    return 1.0 - 2.0 ** -rng.uniform(1.0, 9.0, shape)


def short_decays(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform, never 0."""
    return rng.uniform(0.02, 1.0, shape)


def units(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of length 1."""
    rows = rng.standard_normal(shape)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-30)


def levels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Few different numbers: exact ties within a row of the last axis."""
    return rng.integers(-2, 3, shape) / 2


def alike(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All elements of a row of the last axis are one number."""
    one = np.round(rng.standard_normal((*shape[:-1], 1)) * 8) / 8
    return np.broadcast_to(one, shape).copy()


def near_ties(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Few different numbers, each off by a few units of float32's last place."""
    return levels(rng, shape) + rng.integers(-3, 4, shape) * 2.0**-24


def uniforms(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """From 0 to just below 1, in every format."""
    return rng.random(shape) * 0.99


def coarse_uniforms(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Sixteenths from 0 to 15/16, which meet sums and quotients of coarse probabilities exactly."""
    return rng.integers(0, 16, shape) / 16


def near_quotients(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Between 0 and 1, next to quotients of small numbers, as those of coarse probabilities are: off by a rounding to 16 bits or less."""
    below = rng.integers(2, 17, shape)
    return rng.integers(1, below) / below * (1.0 + rng.choice([-1.0, 1.0], shape) * 2.0 ** -rng.uniform(10.0, 16.0, shape))


def leftovers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal, but what memory may hold that nothing has been written to: NaN and infinities among it."""
    odd = rng.choice([np.nan, np.inf, -np.inf], shape)
    return np.where(rng.random(shape) < 0.2, odd, rng.standard_normal(shape))


def last_uniforms(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Many are the largest below 1 in their format: no cumulative sum that rounding leaves below 1 exceeds them."""
    return np.where(rng.random(shape) < 0.6, 1.0 - 2.0**-53, rng.random(shape))


def _distribution(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
    return weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-30)


def distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of the last axis are probabilities: a softmax of normal numbers."""
    return _distribution(rng.standard_normal(shape))


def peaked_distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities most of which are far below the largest."""
    return _distribution(6 * rng.standard_normal(shape))


def sparse_distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities many of which are 0, as after top-p or top-k sampling."""
    kept = rng.random(shape) < 0.5
    kept[..., :1] |= ~kept.any(axis=-1, keepdims=True)
    return _distribution(np.where(kept, rng.standard_normal(shape), -1000.0))


def coarse_distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Sixteenths, some of them 0: exact in every format, and so are their sums."""
    if 0 in shape:
        return np.zeros(shape)
    return rng.multinomial(16, np.full(shape[-1], 1 / shape[-1]), shape[:-1]) / 16


def even_distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All equally probable, in every row and every array: two of them are the same distribution."""
    return np.full(shape, 1 / max(shape[-1], 1))


def close_distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The same row everywhere but for a millionth: little is left of the difference of two of them, or nothing."""
    common = np.random.default_rng(shape[-1]).standard_normal(shape[-1:])
    return _distribution(common + 1e-6 * rng.standard_normal(shape))


def certain_distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One element of each row has probability 1."""
    return (np.arange(shape[-1]) == rng.integers(0, max(shape[-1], 1), (*shape[:-1], 1))).astype(np.float64)


def counts(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers from 0 on."""
    return rng.integers(0, 12, shape).astype(np.float64)


def large_counts(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers around 128: their variance is small beside their square."""
    return 128.0 + rng.integers(0, 3, shape)


def scales(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Scales under which some normal numbers are too large for int8 and for float8 e4m3."""
    return 2.0 ** rng.uniform(-9.0, -4.0, shape)


def powers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Powers of two: dividing by them is exact, and meets numbers halfway between two codes."""
    return 2.0 ** -rng.integers(2, 8, shape).astype(np.float64)


def small_scales(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Scales under which nearly all normal numbers are too large for every format of 8 bits."""
    return 2.0 ** rng.uniform(-20.0, -12.0, shape)


def coins(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """1 or -1, at random."""
    return rng.choice([-1.0, 1.0], shape)


def parities(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """1 and -1 in turn."""
    return np.broadcast_to(1.0 - 2.0 * (np.arange(shape[-1]) % 2), shape).copy()


def halves(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Odd multiples of a half: halfway between two integers."""
    return rng.integers(-12, 12, shape) + 0.5


def zero_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal, with many rows of zeros, often several in a row."""
    hidden = np.repeat(rng.random(-(-_length(shape) // 3)) < 0.5, 3)[: _length(shape)]
    return np.where(_along(shape, hidden), 0.0, rng.standard_normal(shape))


def zero_columns(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal, with columns of zeros."""
    return rng.standard_normal(shape) * (rng.random(shape[-1:]) < 0.6)


def uneven_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Rows whose magnitudes differ by up to two decades."""
    return rng.standard_normal(shape) * _along(shape, 10.0 ** rng.uniform(-1.5, 0.5, _length(shape)))


def outlier_columns(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One column stands out and has a mean far from zero, as channels of keys do."""
    column = np.zeros(shape[-1:])
    column[rng.integers(max(shape[-1], 1)) if shape[-1] else slice(0)] = 6.0
    return rng.standard_normal(shape) + column


_MAKERS: tuple[Maker, ...] = (
    normal, zeros, ones, index, equal, rising, falling, last, first, after_first, spike, oldest, newest, offset, negative, ties, sparse,
    spread, subnormal, empty_parts, log_gates, slow_gates, strong_gates, mixed_gates, fractions, corners, decays, short_decays, units,
    levels, alike, near_ties, uniforms, coarse_uniforms, near_quotients, leftovers, last_uniforms, distributions, peaked_distributions,
    sparse_distributions, coarse_distributions, even_distributions, close_distributions, certain_distributions, counts, large_counts,
    scales, powers, small_scales, coins, parities, halves, zero_rows, zero_columns, uneven_rows, outlier_columns,
)  # fmt: skip
# Those that rounding to a format must not carry out of their domain.
TOWARDS_ZERO = ("last_uniforms",)
FLOAT_RECIPES = {maker.__name__: maker for maker in _MAKERS}

# Recipes of arrays whose elements the method restricts (see `oracle.domains`), the plainest first.
DOMAIN_RECIPES: dict[str, tuple[str, ...]] = {
    "log-gate": ("log_gates", "log_gates", "slow_gates", "zeros", "strong_gates", "mixed_gates"),
    "fraction": ("fractions", "fractions", "ones", "zeros", "corners"),
    "scale": ("scales", "scales", "powers", "ones", "small_scales"),
    "sign": ("coins", "coins", "ones", "parities"),
    "decay": ("decays", "short_decays", "ones"),
    "finite": ("normal", "normal", "levels", "alike", "near_ties", "zeros", "spread", "offset", "negative"),
    "nonnegative": ("counts", "fractions", "ones", "zeros", "large_counts"),
    "uniform": ("uniforms", "uniforms", "coarse_uniforms", "near_quotients", "zeros", "last_uniforms"),
    "probability": (
        "distributions",
        "distributions",
        "coarse_distributions",
        "peaked_distributions",
        "sparse_distributions",
        "even_distributions",
        "certain_distributions",
        "close_distributions",
    ),
}


def _digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Binary digits of some numbers, the lowest first, (..., width)."""
    return numbers[..., None] >> np.minimum(np.arange(width), 62) & 1


def signs(start: int, shape: tuple[int, ...]) -> np.ndarray:
    """The row's number, counted from ``start`` along the length, in digits -1 and 1: rows agree most with their own number."""
    return np.broadcast_to(2.0 * _digits(np.arange(start, start + _length(shape)), shape[-1]) - 1.0, shape).copy()


def bits(start: int, shape: tuple[int, ...]) -> np.ndarray:
    """The row's number, counted through the whole array, in digits 0 and 1: exact in every format, and readable in an output."""
    rows = np.arange(start, start + prod(shape[:-1])).reshape(shape[:-1])
    return _digits(rows, shape[-1]).astype(np.float64)


def one_hot(start: int, shape: tuple[int, ...]) -> np.ndarray:
    """1 in the column of the row's number, along the length: the output is the weights themselves."""
    columns = np.arange(start, start + _length(shape)) % max(shape[-1], 1)
    return np.broadcast_to(np.arange(shape[-1]) == columns[:, None], shape).astype(np.float64)


def drop(exponent: int, shape: tuple[int, ...]) -> np.ndarray:
    """A first row of ones, and 2^-exponent in all others: what they add to a sum is small beside what it begins with."""
    return np.broadcast_to(_along(shape, np.where(np.arange(_length(shape)) > 0, 2.0**-exponent, 1.0)), shape).copy()


# Keys whose numbers differ from a query's in one digit score 2 * gain / sqrt(D) less than its own: at this gain and up to
# 32 digits, far enough to weigh nothing.
SELECTING_GAIN = 150.0

# Codes, whose seed is the number of the first row; of `drop` it is the exponent.
CODED_RECIPES: dict[str, Callable[[int, tuple[int, ...]], np.ndarray]] = {"signs": signs, "bits": bits, "one_hot": one_hot, "drop": drop}


def make_floats(recipe: str, seed: int, gain: float, shape: tuple[int, ...], form: Format) -> np.ndarray:
    """An array of a recipe in a format, kept within its range."""
    coded = CODED_RECIPES.get(recipe)
    made = (coded(seed, shape) if coded is not None else FLOAT_RECIPES[recipe](np.random.default_rng(seed), shape)) * gain
    kept = np.where(np.isinf(made), made, np.clip(made, -form.largest, form.largest))
    rounded = kept.astype(form.dtype)
    if recipe not in TOWARDS_ZERO:
        return rounded
    return np.where(np.abs(rounded.astype(np.float64)) > np.abs(kept), np.nextafter(rounded, np.zeros_like(rounded)), rounded)
