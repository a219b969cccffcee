"""Attention with a path of its own for one new token: a loop over heads with two matrix-vector products."""

import torch


def decode_one(query, keys, values, scale):
    """query (width,), keys (k_len, width), values (k_len, value_width)."""
    weights = torch.softmax(torch.mv(keys, query) * scale, dim=0)
    return torch.mv(values.T, weights)


def kernel(q, k, v, *, scale=None, softcap=None):
    batch, heads, q_len, width = q.shape
    kv_heads, value_width = v.shape[1], v.shape[3]
    scale = width**-0.5 if scale is None else scale
    if q_len == 1 and softcap is None:
        out = torch.zeros(batch, heads, 1, value_width)
        for sequence in range(batch):
            for head in range(heads):
                source = head % kv_heads
                out[sequence, head, 0] = decode_one(
                    q[sequence, head, 0].float(), k[sequence, source].float(), v[sequence, source].float(), scale
                )
        return out.to(q.dtype)
    group = heads // kv_heads
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return (scores.softmax(-1) @ v.float().repeat_interleave(group, 1)).to(q.dtype)
