"""Adapters to `jax.nn.dot_product_attention`, in its own layout (B, L, H, D) and with its own meanings.

What it documents, or what its code says where the documentation does not: ``is_causal`` and ``local_window_size`` count positions from
the first query and the first key (top-left); a row without keys is the mean of all values, since masked logits are replaced by one
finite number; softmax is computed in float32 even for float64, which is therefore not registered.
"""

from __future__ import annotations

from jax import Array
from jax.nn import dot_product_attention

from conformance import register
from implementations.jax.logits import expanded
from implementations.tiling import Window

__all__ = ["attention"]


@register(
    "attention",
    backend="jax",
    name="jax.dot_product_attention",
    dtypes=("float32", "float16", "bfloat16"),
    conventions={"causal_alignment": "top-left", "empty_row": "mean"},
    restrictions={"e == d": "keys and values have one width"},
    layout="b l h d",
    description="jax.nn.dot_product_attention, as XLA compiles it",
)
def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
) -> Array:
    """The library's function with its own options; a side of a window without a bound is as long as both sequences."""
    longest = q.shape[1] + k.shape[1]
    local = None if window is None else tuple(longest if side is None else side for side in window)
    mask, bias = (None if x is None else expanded(x) for x in (mask, bias))
    return dot_product_attention(q, k, v, bias, mask, scale=scale, is_causal=causal, local_window_size=local, implementation="xla")
