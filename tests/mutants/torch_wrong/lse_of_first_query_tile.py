"""Tiled attention with its logsumexp: statistics are written out tile by tile."""

import torch


def attention_with_lse(q, k, v, *, causal=False, scale=None, block_q=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    lse = torch.full((batch, heads, q_len), -torch.inf)
    maxima = None
    for start in range(0, q_len, block_q):
        stop = min(start + block_q, q_len)
        if k_len == 0:
            break
        scores = q[:, :, start:stop].float() @ keys.mT * scale
        if causal:
            position = torch.arange(start, stop)[:, None] + k_len - q_len
            scores = scores.masked_fill(torch.arange(k_len) > position, -torch.inf)
        top = scores.amax(-1, keepdim=True)
        top = top.masked_fill(top == -torch.inf, 0.0)
        weights = torch.exp(scores - top)
        total = weights.sum(-1, keepdim=True)
        out[:, :, start:stop] = (weights @ values / total.masked_fill(total == 0, 1.0)).to(q.dtype)
        if maxima is None:
            maxima = top.squeeze(-1)
        lse[:, :, start:stop] = maxima[..., : stop - start] + total.log().squeeze(-1)
    return out, lse
