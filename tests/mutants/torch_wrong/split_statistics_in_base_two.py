"""Attention in chunks of keys that are merged by their logsumexps; the inner loop works with exp2."""

import math

import torch

CHUNK = 160


def chunk_attention(q, k, v, hidden, scale):
    """Output (normalised) and logsumexp of one chunk."""
    scores = (q @ k.mT * (scale * math.log2(math.e))).masked_fill(hidden, -torch.inf)
    top = scores.amax(-1, keepdim=True)
    top = torch.where(top == -torch.inf, 0.0, top)
    weights = torch.exp2(scores - top)
    total = weights.sum(-1, keepdim=True)
    return weights @ v / total.masked_fill(total == 0, 1.0), torch.log2(total) + top


def merge(out, lse, chunk_out, chunk_lse):
    """Two partial results into one."""
    merged = torch.logaddexp(lse, chunk_lse)
    shift = torch.where(merged == -torch.inf, 0.0, merged)
    return out * torch.exp(lse - shift) + chunk_out * torch.exp(chunk_lse - shift), merged


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k_len - q_len + 1)
    out = torch.zeros(batch, heads, q_len, v.shape[3])
    lse = torch.full((batch, heads, q_len, 1), -torch.inf)
    for start in range(0, k_len, CHUNK):
        chunk = slice(start, start + CHUNK)
        out, lse = merge(out, lse, *chunk_attention(q.float(), keys[:, :, chunk], values[:, :, chunk], hidden[:, chunk], scale))
    return out.to(q.dtype)
