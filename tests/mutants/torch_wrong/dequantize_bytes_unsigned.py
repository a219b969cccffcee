"""Codes of 8 bits back to numbers."""

import torch


def kernel(codes, scales, *, format="int8", granularity="token", block_size=64):
    numbers = (codes.view(torch.uint8) if format == "int8" else codes).to(scales.dtype)
    if granularity == "block":
        scales = scales.repeat_interleave(block_size, dim=2)[:, :, : codes.shape[2]]
    return numbers * scales
