"""onnxruntime: the operator `Attention` of opset 23 on the CPU."""

from __future__ import annotations

from conformance import register
from implementations.onnxruntime.sessions import Array, run_node
from implementations.thirdparty.onnx import CONVENTIONS, OPSET, RESTRICTIONS, whole

__all__ = ["attention", "whole_masks"]


@register(
    "attention",
    backend="numpy",
    name="thirdparty.onnxruntime",
    conventions=CONVENTIONS,
    restrictions={**RESTRICTIONS, "b > 0 and l > 0": "batch_size should be > 0"},
    description="onnxruntime: Attention-23 on the CPU",
)
def attention(
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
    """`Attention` without a cache, its mask as it is given: `implementations.onnxruntime` gives it whole ones."""
    attributes = {"is_causal": int(causal), "scale": scale, "softcap": softcap}
    return run_node("Attention", [q, k, v, bias if mask is None else mask], ["Y"], attributes, OPSET)[0]


@register(
    "attention",
    backend="numpy",
    name="thirdparty.onnxruntime_whole_masks",
    conventions=CONVENTIONS,
    restrictions={**RESTRICTIONS, "b > 0 and l > 0": "batch_size should be > 0"},
    description="onnxruntime: the same with masks that are not broadcast over queries and keys",
)
def whole_masks(
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
    """As `attention`, with a mask that has a row for each query and a column for each key."""
    return attention(q, k, v, mask=whole(q, k, mask), bias=whole(q, k, bias), causal=causal, softcap=softcap, scale=scale)
