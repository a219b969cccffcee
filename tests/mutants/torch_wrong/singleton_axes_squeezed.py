"""Attention that drops the batch axis of a single sequence, which the two-dimensional product does not need."""

import torch


def softmax_rows(scores, allowed):
    scores = scores.masked_fill(~allowed, -torch.inf)
    return torch.softmax(scores, dim=-1).masked_fill(~allowed.any(-1, keepdim=True), 0.0)


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    allowed = allowed.tril(k_len - q_len) if causal else allowed
    if batch == 1:
        scores = torch.einsum("hqd,hkd->hqk", q[0].float(), keys[0]) * scale
        out = torch.einsum("hqk,hke->hqe", softmax_rows(scores, allowed), values[0])
        return out.squeeze().unsqueeze(0).to(q.dtype)
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), keys) * scale
    return torch.einsum("bhqk,bhke->bhqe", softmax_rows(scores, allowed), values).to(q.dtype)
