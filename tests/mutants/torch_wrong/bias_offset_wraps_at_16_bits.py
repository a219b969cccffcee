"""Attention whose bias is addressed by element offsets: row times stride plus column."""

import torch

OFFSET_BITS = 16


def load_bias(bias, first_row, last_row, q_len, k_len):
    """Rows first_row..last_row of a (batch, heads, q_len, k_len) bias."""
    row_stride = k_len
    offset = (torch.arange(first_row, last_row) * row_stride) & (2**OFFSET_BITS - 1)
    flat = bias.reshape(*bias.shape[:2], q_len * k_len)
    return flat[..., offset[:, None] + torch.arange(k_len)]


def kernel(q, k, v, *, bias=None, causal=False, scale=None, block_q=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    full_bias = None if bias is None else bias.float().expand(batch, heads, q_len, k_len)
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    for start in range(0, q_len, block_q):
        stop = min(start + block_q, q_len)
        scores = q[:, :, start:stop].float() @ keys.mT * scale
        if full_bias is not None:
            scores = scores + load_bias(full_bias, start, stop, q_len, k_len)
        hidden = torch.zeros(stop - start, k_len, dtype=torch.bool)
        if causal:
            hidden = torch.arange(k_len) > torch.arange(start, stop)[:, None] + k_len - q_len
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
        out[:, :, start:stop] = (weights @ values).to(q.dtype)
    return out
