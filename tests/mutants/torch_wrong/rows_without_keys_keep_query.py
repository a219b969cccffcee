"""Attention that writes its result over the workspace of the scaled queries when the widths agree."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_q=32):
    batch, heads, q_len, width = q.shape
    k_len, value_width = v.shape[2:]
    group = heads // k.shape[1]
    workspace = q.float() * (width**-0.5 if scale is None else scale)
    out = workspace if value_width == width else torch.zeros(batch, heads, q_len, value_width)
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    visible = visible.expand(batch, heads, q_len, k_len)
    if k_len == 0:
        return out.zero_().to(q.dtype)
    for start in range(0, q_len, block_q):
        rows = slice(start, start + block_q)
        tile = visible[:, :, rows]
        if not tile.any():
            continue
        scores = (workspace[:, :, rows] @ keys.mT).masked_fill(~tile, -torch.inf)
        weights = torch.softmax(scores, dim=-1).masked_fill(~tile.any(-1, keepdim=True), 0.0)
        out[:, :, rows] = weights @ values
    return out.to(q.dtype)
