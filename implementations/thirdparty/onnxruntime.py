"""onnxruntime: the operator `Attention` of opset 23 on the CPU."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnxruntime

from conformance import register
from implementations.thirdparty.onnx import CONVENTIONS, RESTRICTIONS, feeds, model, whole

__all__ = ["attention", "whole_masks"]

Array = np.ndarray


@lru_cache(maxsize=64)
def _session(mask: str | None, causal: bool, scale: float | None, softcap: float | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    serialized = model(mask, causal, scale, softcap).SerializeToString()
    return onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])


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
    """`Attention` in a session of its own for each set of attributes, without a cache."""
    arrays, kind = feeds(q, k, v, mask, bias)
    return _session(kind, causal, scale, softcap).run(None, arrays)[0]


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
