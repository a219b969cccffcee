"""Two-pass attention: first the row maxima, then the weights tile by tile, in the registers of a 16-bit pipeline."""

import torch


def kernel(q, k, v, *, causal=False, scale=None, block_k=64):
    batch, heads, q_len, width = q.shape
    k_len, value_width = k.shape[2], v.shape[3]
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    scores = q.float() @ keys.mT * scale
    if causal:
        scores = scores.masked_fill(torch.ones(q_len, k_len, dtype=torch.bool).triu(k_len - q_len + 1), -torch.inf)
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, value_width)
    top = scores.amax(dim=-1, keepdim=True)
    top = torch.where(top == -torch.inf, 0.0, top)
    total = torch.zeros(batch, heads, q_len, 1)
    out = torch.zeros(batch, heads, q_len, value_width)
    for start in range(0, k_len, block_k):
        exponent = (scores[..., start : start + block_k] - top).to(q.dtype)
        weights = torch.exp(exponent.float())
        total += weights.sum(dim=-1, keepdim=True)
        out += weights @ values[:, :, start : start + block_k]
    return (out / total.masked_fill(total == 0, 1.0)).to(q.dtype)
