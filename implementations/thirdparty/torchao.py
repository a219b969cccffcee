"""torchao: conversion to the MX formats, and the numbers that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor
from torchao.prototype.mx_formats.mx_tensor import to_mx

from conformance import register

__all__ = ["quantize"]

ELEMENTS = {"mxfp4": torch.float4_e2m1fn_x2, "mxfp8_e4m3": torch.float8_e4m3fn, "mxfp8_e5m2": torch.float8_e5m2}
BLOCK = 32


@register(
    "quantize_microscaling",
    backend="torch",
    name="thirdparty.torchao_mx",
    dtypes=("float32", "bfloat16"),
    restrictions={
        "format != 'nvfp4'": "an MX format",
        "d % 32 == 0 and d > 0 and b > 0 and h > 0 and l > 0": "whole blocks",
        "contiguous": "'unsupported' otherwise",
    },
    description="torchao: to_mx",
)
def quantize(x: Tensor, *, format: str = "mxfp4") -> tuple[Tensor, Tensor]:
    """`to_mx` with the scale that the OCP specification describes (FLOOR)."""
    scales, codes = to_mx(x, ELEMENTS[format], BLOCK)
    return codes, scales
