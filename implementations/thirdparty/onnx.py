"""ONNX: the operator `Attention` of opset 23, in the reference evaluator of onnx and in onnxruntime on the CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from conformance import register

__all__ = ["CONVENTIONS", "OPSET", "RESTRICTIONS", "attention", "model", "whole", "whole_masks"]

Array = np.ndarray
OPSET = 23
CONVENTIONS = {"causal_alignment": "top-left"}
RESTRICTIONS = {
    "mask is None or bias is None": "attn_mask is the one or the other",
    "mask_rank in (None, 2, 3, 4) and bias_rank in (None, 2, 3, 4)": "two to four axes",
    "scale is None or scale > 0": "its square root is multiplied into queries and keys",
    "s > 0 and d > 0 and h > 0": "at least one key, of some width",
}


def model(mask: str | None, causal: bool, scale: float | None, softcap: float | None) -> ModelProto:
    """A graph of one operator; ``mask`` is the type of the attn_mask, bool or float, if there is one."""
    attributes: dict[str, Any] = {"is_causal": int(causal)}
    attributes |= {name: float(value) for name, value in (("scale", scale), ("softcap", softcap)) if value is not None}
    names = ["q", "k", "v"] + (["mask"] if mask else [])
    types = {"mask": TensorProto.BOOL if mask == "bool" else TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None) for name in names]
    node = helper.make_node("Attention", names, ["out"], **attributes)
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "attention", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _feeds(q: Array, k: Array, v: Array, mask: Array | None, bias: Array | None) -> tuple[dict[str, Array], str | None]:
    """The inputs by name, and the type of the mask."""
    arrays = {"q": q, "k": k, "v": v}
    given = bias if mask is None else mask
    if given is None:
        return arrays, None
    return {**arrays, "mask": given}, "float" if mask is None else "bool"


@lru_cache(maxsize=64)
def _evaluator(mask: str | None, causal: bool, scale: float | None, softcap: float | None) -> ReferenceEvaluator:
    return ReferenceEvaluator(model(mask, causal, scale, softcap))


@register(
    "attention",
    backend="numpy",
    name="thirdparty.onnx",
    conventions=CONVENTIONS,
    restrictions=RESTRICTIONS,
    description="onnx: Attention-23 in the reference evaluator",
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
    """`Attention` in the reference evaluator, without a cache."""
    arrays, kind = _feeds(q, k, v, mask, bias)
    return _evaluator(kind, causal, scale, softcap).run(None, arrays)[0]


@register(
    "attention",
    backend="numpy",
    name="thirdparty.onnx_whole_masks",
    conventions=CONVENTIONS,
    restrictions=RESTRICTIONS,
    description="onnx: the same with masks that are not broadcast over queries and keys",
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


def whole(q: Array, k: Array, mask: Array | None) -> Array | None:
    """A mask (..., Lq, Lk) instead of one that is broadcast there."""
    return None if mask is None else np.array(np.broadcast_to(mask, (*mask.shape[:-2], q.shape[2], k.shape[2])))
