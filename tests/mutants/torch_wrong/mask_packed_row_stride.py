"""Tree attention with a bit mask: eight keys a byte, as the decoding kernel reads it."""

import torch
from torch.nn import functional as F

BITS = 2 ** torch.arange(8)


def pack(mask):
    """bool (..., k_len) as bytes; every row is filled up to a whole number of bytes, the rows follow each other."""
    rows = mask.reshape(-1, mask.shape[-1]).to(torch.int64)
    rows = F.pad(rows, (0, -rows.shape[1] % 8))
    return (rows.view(rows.shape[0], -1, 8) * BITS).sum(dim=-1).flatten()


def unpack(stream, row_count, k_len):
    """bool (row_count, k_len)."""
    row_bytes = k_len // 8
    column = torch.arange(k_len)
    address = torch.arange(row_count)[:, None] * row_bytes + column // 8
    return (stream[address] >> (column % 8)) & 1 == 1


def kernel(q, k, v, *, mask=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT) * scale
    values = v.float().repeat_interleave(group, dim=1)
    if mask is None or scores.numel() == 0:
        return torch.matmul(torch.softmax(scores, -1), values).to(q.dtype)
    visible = unpack(pack(mask.expand(scores.shape)), batch * heads * q_len, k_len).view(scores.shape)
    weights = torch.softmax(scores.masked_fill(~visible, -torch.inf), -1)
    return torch.matmul(weights.masked_fill(~visible.any(-1, keepdim=True), 0.0), values).to(q.dtype)
