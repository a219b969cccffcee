"""Keras on its PyTorch backend: `keras.ops.dot_product_attention`, and layers whose projections are identities."""

from __future__ import annotations

import os

# Keras reads its backend once, when it is imported; whoever set it to another one meant that.
os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from torch import Tensor

from conformance import register

__all__ = ["attention", "layer"]


@register(
    "attention",
    backend="torch",
    name="thirdparty.keras",
    layout="b l h d",
    conventions={"causal_alignment": "top-left", "empty_row": "mean"},
    restrictions={
        "mask is None or bias is None": "takes one of the two",
        "d == e": "values have the shape of keys",
        "s > 0 and d > 0": "at least one key, of some width",
        "mask_rank in (None, 2, 3, 4) and bias_rank in (None, 2, 3, 4)": "two axes at least",
        "not causal or scale is None or scale > 0": "PyTorch's is_causal puts -inf in before it scales",
    },
    description="keras.ops.dot_product_attention, PyTorch backend",
)
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """`keras.ops.dot_product_attention`."""
    return keras.ops.dot_product_attention(q, k, v, bias=bias, mask=mask, scale=scale, is_causal=causal)


@register(
    "attention",
    backend="torch",
    name="thirdparty.keras_layer",
    conventions={"causal_alignment": "top-left", "empty_row": "mean"},
    restrictions={
        "h == 1 and g == 1": "the layer has no heads",
        "mask_rank is None": "its masks are those of paddings",
        "b > 0 and l > 0 and s > 0 and d > 0 and e > 0": "there is something to attend to",
    },
    description="keras.layers.Attention, PyTorch backend",
)
def layer(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """`keras.layers.Attention`, which has no scale of 1 / sqrt(D): the queries are scaled here."""
    scaled = q[:, 0] * q.shape[3] ** -0.5
    with torch.no_grad():
        return keras.layers.Attention()([scaled, v[:, 0], k[:, 0]], use_causal_mask=causal)[:, None]
