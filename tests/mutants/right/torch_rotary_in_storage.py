"""Rotary embedding as model code has it: tables, products and sums in the dtype of the queries."""

import torch


def kernel(x, positions, *, base=10000.0):
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    width = x.shape[-1]
    frequencies = 1.0 / base ** (torch.arange(0, width, 2, dtype=exact) / max(width, 1))
    angles = positions.to(exact)[:, None, :, None] * frequencies
    cos, sin = (torch.cat([table, table], dim=-1).to(x.dtype) for table in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, dim=-1) if width else (x, x)
    return x * cos + torch.cat([-second, first], dim=-1)[..., :width] * sin
