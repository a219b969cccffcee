"""An exponential and a sigmoid that are accurate relative to themselves.

On a GPU `tl.exp` of float32 is 2 to the power of a rounded product (`ex2.approx`), so that its relative error grows with the magnitude of
its argument. In a softmax that is lost beside the largest weight, but not where an exponential is a result or a factor of its own.
"""

from __future__ import annotations

import implementations.triton.interpreter  # noqa: F401  # isort: skip  (before Triton)

import triton
import triton.language as tl

__all__ = ["exp", "sigmoid"]


@triton.jit
def exp(x):
    """exp(n ln 2 + r) = 2^n exp(r), |r| < 0.35; n ln 2 is subtracted in two parts, the first of them exact (Cody and Waite 1980)."""
    x = tl.where(x < -200.0, -200.0, tl.where(x > 200.0, 200.0, x))  # where float32 has long gone to 0 and to infinity; NaN stays
    n = tl.floor(x * 1.4426950408889634 + 0.5)
    rest = (x - n * 0.693359375) + n * 2.12194440054690583e-4
    half = tl.floor(n * 0.5)  # as 2^n may overflow where the result does not
    return tl.exp(rest) * tl.exp2(half) * tl.exp2(n - half)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), by an exponential that cannot overflow."""
    small = exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1 + small)
