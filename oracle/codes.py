"""Formats of at most 8 bits: which number each bit pattern stands for, and which of these numbers is nearest to another.

float8 e4m3fn and e5m2: Micikevicius et al. 2022, arXiv:2209.05433, table 1; FP4 (e2m1), the scales e8m0 and blocks of them: OCP
Microscaling Formats 1.0, section 5.3 and 5.4; int8 here is symmetric, from -127 to 127. ``ml_dtypes`` has the same numbers, which the
tests compare one by one; this module does not need it, so that extended precision can be rounded as well.

A code is the bit pattern, an unsigned integer. What may be decoded is a number of float64: all of these formats are exact in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["CODE_FORMATS", "CodeFormat", "pack", "unpack"]

# FP4 codes in a byte: the first of two along the last axis is in the low nibble.
NIBBLES = 2


@dataclass(frozen=True)
class CodeFormat:
    """A format of a few bits.

    Attributes:
        name: as of its dtype in ``ml_dtypes``, or int8.
        bits: of a code.
        exponent: bits of the exponent; 0 for an integer.
        mantissa: bits of the mantissa.
        bias: of the exponent.
        largest: largest number, at which it saturates.
        signed: whether it has a sign.
    """

    name: str
    bits: int
    exponent: int
    mantissa: int
    bias: int
    largest: float
    signed: bool = True

    @property
    def smallest_normal(self) -> float:
        """The smallest number of full precision: below it numbers are as far apart as just above it."""
        return 2.0 ** (1 - self.bias) if self.exponent else 1.0

    @property
    def smallest(self) -> float:
        """The smallest number above zero."""
        return self.smallest_normal * 2.0**-self.mantissa if self.exponent else 1.0

    @property
    def unit_roundoff(self) -> float:
        """Relative error of one rounding to nearest, of a number that is not below `smallest_normal`."""
        return 2.0 ** -(self.mantissa + 1)

    @property
    def packed(self) -> int:
        """How many codes share a byte."""
        return 8 // self.bits

    @cached_property
    def table(self) -> np.ndarray:
        """The number of every code, float64: infinities and NaN where the format has them."""
        codes = np.arange(2**self.bits)
        if self.name == "int8":
            return codes.astype(np.uint8).view(np.int8).astype(np.float64)
        if not self.mantissa:  # e8m0: powers of two alone, and one NaN
            return np.append(2.0 ** (codes[:-1] - self.bias), np.nan)
        low, magnitude = codes & 2**self.mantissa - 1, codes & 2 ** (self.bits - 1) - 1
        power = magnitude >> self.mantissa
        numbers = np.where(power > 0, (1 + low * 2.0**-self.mantissa) * 2.0 ** (power - self.bias), low * self.smallest)
        if self.name == "float8_e5m2":  # as in IEEE 754, the largest exponent is of infinities and NaN
            numbers = np.where(power == 2**self.exponent - 1, np.where(low == 0, np.inf, np.nan), numbers)
        elif self.name == "float8_e4m3fn":  # one NaN of either sign, no infinity
            numbers = np.where(magnitude == 2 ** (self.bits - 1) - 1, np.nan, numbers)
        return np.where(codes >> (self.bits - 1), -numbers, numbers)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The numbers of some codes, float64.

        Args:
            codes: bit patterns, as any array of elements of one byte: of uint8, int8 or a float8.
        """
        return self.table[np.ascontiguousarray(codes).view(np.uint8).reshape(np.shape(codes))]

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """The nearest number of the format, of two equally near the one with an even code; saturated. In the dtype of ``x``."""
        kept = np.clip(x, -self.largest, self.largest)
        if not self.exponent:
            return np.rint(kept)
        # Numbers in [2^e, 2^(e+1)) are 2^(e - mantissa) apart; dividing by a power of two is exact.
        exponent = np.frexp(np.maximum(np.abs(kept), self.smallest_normal))[1] - 1
        spacing = np.ldexp(np.ones((), kept.dtype), exponent - self.mantissa)
        return np.rint(kept / spacing) * spacing

    def encode(self, x: np.ndarray) -> np.ndarray:
        """The codes, uint8, of the nearest numbers; those of NaN where the format has one, of 0 where it has none."""
        values, order = self._numbers
        wanted = self.nearest(np.nan_to_num(np.asarray(x, dtype=np.float64), nan=0.0, posinf=self.largest, neginf=-self.largest))
        codes = order[np.searchsorted(values, wanted)]
        if self.signed and self.exponent:  # minus zero is a code of its own
            codes = np.where((wanted == 0) & np.signbit(wanted), 2 ** (self.bits - 1), codes)
        nan = np.flatnonzero(np.isnan(self.table))
        return np.where(np.isnan(x), nan[0] if nan.size else 0, codes).astype(np.uint8)

    @cached_property
    def _numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """The finite numbers in rising order, zero once, with their codes."""
        codes = np.flatnonzero(np.isfinite(self.table) & ~((self.table == 0) & np.signbit(self.table)))
        codes = codes[np.argsort(self.table[codes], kind="stable")]
        return self.table[codes], codes


CODE_FORMATS = {
    form.name: form
    for form in (
        CodeFormat("int8", 8, 0, 7, 0, 127.0),
        CodeFormat("float8_e4m3fn", 8, 4, 3, 7, 448.0),
        CodeFormat("float8_e5m2", 8, 5, 2, 15, 57344.0),
        CodeFormat("float4_e2m1fn", 4, 2, 1, 1, 6.0),
        CodeFormat("float8_e8m0fnu", 8, 8, 0, 127, 2.0**127, signed=False),
    )
}


def pack(codes: np.ndarray) -> np.ndarray:
    """FP4 codes (..., n), two to a byte (..., ceil(n / 2)): the first in the low nibble; the last high nibble may be empty."""
    padded = np.concatenate([codes, np.zeros((*codes.shape[:-1], codes.shape[-1] % NIBBLES), codes.dtype)], axis=-1)
    return (padded[..., 0::2] | padded[..., 1::2] << 4).astype(np.uint8)


def unpack(stored: np.ndarray, count: int) -> np.ndarray:
    """Undo `pack` for rows of ``count`` codes."""
    both = np.stack([stored & 15, stored >> 4], axis=-1)
    return both.reshape(*stored.shape[:-1], stored.shape[-1] * NIBBLES)[..., :count]
