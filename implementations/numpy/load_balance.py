"""Balance of experts in NumPy: sums that run over blocks of tokens, a variance that is updated load by load, whole arithmetic.

Products of f_i and P_i are an inner product of two running sums, so that probabilities are read once.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from conformance import block_sizes, register
from implementations.numpy.logits import Array, working_dtype

__all__ = ["capacity", "switch_loss", "variation"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


@register("switch_load_balance_loss", backend="numpy", name="numpy.switch_loss", dtypes=DTYPES, tunables={"block_tokens": block_sizes},
          description="running sums over blocks of tokens, one-hot counts")  # fmt: skip
def switch_loss(probabilities: Array, indices: Array, *, block_tokens: int = 64) -> Array:
    """E times the inner product of counts and summed probabilities, over T and the number of assignments."""
    tokens, experts = probabilities.shape
    dtype = working_dtype(probabilities)
    if indices.size and not (indices.min() >= 0 and indices.max() < experts):
        raise ValueError(f"indices range from {indices.min()} to {indices.max()}, but should be at least 0 and below {experts}")
    counts, sums = np.zeros(experts, np.int64), np.zeros(experts, dtype)
    for start in range(0, tokens, block_tokens):
        part = slice(start, start + block_tokens)
        counts += (indices[part, :, None] == np.arange(experts)).sum(axis=(0, 1))
        sums += probabilities[part].astype(dtype).sum(axis=0)
    loss: Array = counts.astype(dtype) @ sums * dtype.type(experts) / dtype.type(max(tokens * indices.size, 1))
    return loss


@register("load_balance_cv", backend="numpy", name="numpy.variation", dtypes=DTYPES,
          description="Welford's update, one expert after the other")  # fmt: skip
def variation(loads: Array) -> Array:
    """The mean and the squared deviations from it are updated together (Welford 1962), in the working precision."""
    dtype = working_dtype(loads)
    if not (np.isfinite(loads.astype(dtype)) & (loads >= 0)).all():
        raise ValueError("loads should be finite and at least 0")
    mean, squares = dtype.type(0), dtype.type(0)
    for count, load in enumerate(loads.astype(dtype), start=1):
        step = load - mean
        mean += step / dtype.type(count)
        squares += step * (load - mean)
    return np.asarray(np.sqrt(squares / dtype.type(len(loads))) / mean if mean > 0 else 0, dtype=dtype)


@register("expert_capacity", backend="numpy", name="numpy.capacity", dtypes=("float32",), description="in whole numbers")  # fmt: skip
def capacity(*, tokens: int, experts: int, k: int = 1, capacity_factor: float = 1.0, min_capacity: int = 0) -> int:
    """A quotient of integers, rounded up by the remainder."""
    if tokens < 0 or experts < 1 or k < 1 or capacity_factor <= 0 or min_capacity < 0:
        raise ValueError(f"tokens={tokens}, experts={experts}, k={k}, capacity_factor={capacity_factor} leave no capacity")
    upper, lower = Fraction(capacity_factor).as_integer_ratio()
    return max(-(-tokens * k * upper // (experts * lower)), min_capacity)
