"""onnxruntime: the operator `Attention` of opset 23 on the CPU."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnxruntime

from conformance import register
from implementations.thirdparty.onnx import CONVENTIONS, RESTRICTIONS, feeds, model

__all__ = ["attention"]

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
    restrictions=RESTRICTIONS,
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
