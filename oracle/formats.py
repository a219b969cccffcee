"""Floating-point formats: the numbers of IEEE 754 (and bfloat16, TF32) that the error analysis needs.

Everything that depends on a precision takes it from here; no module types a machine constant of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

__all__ = ["FORMATS", "Format", "format_of"]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes:
        name: as in ``--dtype``.
        unit_roundoff: half the spacing of numbers just above 1; the relative error of one rounding to nearest.
        smallest_normal: below it a machine may flush to zero.
        smallest_subnormal: spacing of the numbers below ``smallest_normal``.
        largest: largest finite number.
    """

    name: str
    unit_roundoff: float
    smallest_normal: float
    smallest_subnormal: float
    largest: float

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype that stores this format (``ml_dtypes`` for bfloat16)."""
        return np.dtype(getattr(ml_dtypes, self.name, self.name))

    @property
    def is_half(self) -> bool:
        """Whether the format is a storage format of 16 bits, whose kernels accumulate in float32."""
        return self.dtype.itemsize == 2


def _measure(name: str) -> Format:
    info = ml_dtypes.finfo(name)  # type: ignore[no-untyped-call]
    return Format(name, float(info.eps) / 2, float(info.smallest_normal), float(info.smallest_subnormal), float(info.max))


FORMATS = {name: _measure(name) for name in ("float64", "float32", "float16", "bfloat16")}

# TF32 keeps float32's exponent and 10 explicit mantissa bits; it exists only inside matrix units and has no dtype.
TF32_UNIT_ROUNDOFF = 2.0**-11


def format_of(dtype: object) -> Format:
    """The format of a NumPy dtype (or its name).

    Raises:
        ValueError: the dtype is not a supported floating-point format.
    """
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name  # type: ignore[call-overload]
    if name not in FORMATS:
        raise ValueError(f"dtype={name!r}, but should be one of {', '.join(FORMATS)}")
    return FORMATS[name]
