"""Adapters to the attention operators that ONNX Runtime runs on the CPU: the standard's, and two of com.microsoft.

The third, com.microsoft Attention, projects its input itself: whatever picks queries, keys and values out of it multiplies a NaN by
zeros, so that one would spread in the adapter and tell nothing of the operator. Its attention is that of MultiHeadAttention.

Shapes: q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv). The specifications: https://onnx.ai/onnx/operators/
and https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from conformance import register
from implementations.onnxruntime.sessions import MICROSOFT, Array, run_node

__all__ = ["attention_23", "attention_24", "group_query_attention", "multi_head_attention"]

SAME_HEADS = {"h == g": "multi-head attention has no grouped heads"}
SCALE = {"scale is None or scale != 0": "a scale of 0 is taken for none, and 1 / sqrt(D) used instead"}
NOT_EMPTY = {"scale is None or scale > 0": "a scale must be greater than 0", "b > 0 and l > 0 and s > 0": "no length may be 0"}
# The standard: without softmax_precision the softmax has the precision of Q and K. On the CPU, 1.32 gives it that in any case.
SOFTMAX_IN_STORAGE = "float16-full"
LAST_QUERY = {"not causal or l >= s": "unidirectional masks no key from the last query, be there fewer queries than keys"}


def _mask(q: Array, k: Array, mask: Array | None, bias: Array | None) -> Array | None:
    """Mask and bias as the one that the operator takes: bool, True = may attend, or a float that is added to the logits.

    The standard lets any shape broadcast; ONNX Runtime 1.32 refuses one that does not name every query and every key.
    """
    one = bias if mask is None else mask if bias is None else np.where(mask, bias, bias.dtype.type(-np.inf))
    if one is None:
        return None
    full = np.broadcast_shapes(one.shape, (1, 1, q.shape[2], k.shape[2]))
    return np.ascontiguousarray(np.broadcast_to(one, full))


def _standard(
    opset: int, q: Array, k: Array, v: Array, mask: Array | None, bias: Array | None, causal: bool, softcap: float | None,
    scale: float | None,
) -> Array:  # fmt: skip
    attributes = {"is_causal": int(causal), "softcap": softcap, "scale": scale}
    return run_node("Attention", [q, k, v, _mask(q, k, mask, bias)], ["Y"], attributes, opset)[0]


@register(
    "attention",
    backend="numpy",
    name="onnxruntime.attention_23",
    dtypes=("float32", "float16"),
    contract=SOFTMAX_IN_STORAGE,
    conventions={"causal_alignment": "top-left"},
    restrictions=NOT_EMPTY,
    description="ai.onnx Attention of opset 23",
)
def attention_23(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    softcap: float | None = None,
    scale: float | None = None,
) -> Array:
    """The standard's operator with queries, keys and values of four axes; without a cache, is_causal is top-left."""
    return _standard(23, q, k, v, mask, bias, causal, softcap, scale)


@register(
    "attention",
    backend="numpy",
    name="onnxruntime.attention_24",
    dtypes=("float32", "float16"),
    contract=SOFTMAX_IN_STORAGE,
    conventions={"causal_alignment": "top-left"},
    restrictions=NOT_EMPTY,
    description="ai.onnx Attention of opset 24",
)
def attention_24(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    softcap: float | None = None,
    scale: float | None = None,
) -> Array:
    """As `attention_23`, in the version that may be told how many keys are no padding."""
    return _standard(24, q, k, v, mask, bias, causal, softcap, scale)


def _packed(x: Array) -> Array:
    """(B, H, L, D) -> (B, L, H * D)."""
    batch, heads, length, width = x.shape
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(batch, length, heads * width)


def _unpacked(x: Array, heads: int, width: int) -> Array:
    """(B, L, H * D) -> (B, H, L, D)."""
    return np.ascontiguousarray(x.reshape(*x.shape[:2], heads, width).transpose(0, 2, 1, 3))


@register(
    "attention",
    backend="numpy",
    name="onnxruntime.multi_head_attention",
    dtypes=("float32",),
    conventions={"causal_alignment": "top-left"},
    restrictions={**SAME_HEADS, **SCALE, **LAST_QUERY},
    description="com.microsoft MultiHeadAttention",
)
def multi_head_attention(
    q: Array, k: Array, v: Array, *, bias: Array | None = None, causal: bool = False, scale: float | None = None
) -> Array:
    """Queries, keys and values apart; ``unidirectional`` for causal, ``attention_bias`` for the bias."""
    heads, full = q.shape[1], (*q.shape[:3], k.shape[2])
    added = None if bias is None else np.ascontiguousarray(np.broadcast_to(bias, full))
    attributes = {"num_heads": heads, "unidirectional": int(causal), "scale": scale}
    inputs = [_packed(q), _packed(k), _packed(v), None, None, added]
    return _unpacked(run_node("MultiHeadAttention", inputs, ["output"], attributes, 23, MICROSOFT)[0], heads, v.shape[3])


@register(
    "attention",
    backend="numpy",
    name="onnxruntime.group_query_attention",
    dtypes=("float32", "float16"),
    restrictions={
        **SCALE,
        "b > 0": "an empty batch ends the process by SIGFPE (ONNX Runtime 1.32)",
        "causal": "it is always causal",
        "d % 8 == 0": "the width of a head must be a multiple of 8",
        "0 < l and l <= s": "the keys before the queries are its cache",
        "l == s or l == 1 or b == 1": "several new tokens after a cache are for one sequence",
        "d == e": "keys and values have one width",
    },
    description="com.microsoft GroupQueryAttention, earlier keys as its cache",
)
def group_query_attention(
    q: Array, k: Array, v: Array, *, causal: bool = True, softcap: float | None = None, scale: float | None = None
) -> Array:
    """The last keys and values come with the queries, the ones before from the cache, so that causal is bottom-right."""
    batch, heads, queries, width = q.shape
    groups, keys = k.shape[1], k.shape[2]
    before = keys - queries
    past = [np.ascontiguousarray(x[:, :, :before]) for x in (k, v)]
    last = np.full(batch, keys - 1, dtype=np.int32)  # of each sequence, its last key
    inputs = [_packed(q), _packed(k[:, :, before:]), _packed(v[:, :, before:]), *past, last, np.array(keys, dtype=np.int32)]
    attributes = {"num_heads": heads, "kv_num_heads": groups, "softcap": softcap, "scale": 1 / sqrt(width) if scale is None else scale}
    outputs = ["output", "present_key", "present_value"]
    return _unpacked(run_node("GroupQueryAttention", inputs, outputs, attributes, 23, MICROSOFT)[0], heads, width)
