"""Microscaling formats back to numbers."""

import torch

TABLE = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]


def kernel(codes, scales, *, tensor_scale=None, format="mxfp4"):
    dtype = torch.float32 if tensor_scale is None else tensor_scale.dtype
    if format in ("mxfp4", "nvfp4"):
        table = torch.tensor(TABLE, dtype=dtype)
        low, high = table[(codes & 15).long()], table[(codes >> 4).long()]
        numbers = torch.stack([low, high], dim=-1).flatten(-2)
    else:
        numbers = codes.to(dtype)
    size = 16
    factors = scales.to(dtype).repeat_interleave(size, dim=3)[..., : numbers.shape[3]]
    factors = torch.cat([factors, factors[..., -1:].expand(*factors.shape[:3], numbers.shape[3] - factors.shape[3])], dim=3)
    out = numbers * factors
    return out if tensor_scale is None else out * tensor_scale
