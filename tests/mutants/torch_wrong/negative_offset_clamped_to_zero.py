"""Attention of new tokens over a cache: the tokens stand behind the cached ones."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    cached = max(k_len - q_len, 0)
    scale = width**-0.5 if scale is None else scale
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = torch.arange(k_len)[None, :] <= cached + torch.arange(q_len)[:, None]
    if mask is not None:
        allowed = allowed & mask
    grouped = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = torch.einsum("bgrqd,bgkd->bgrqk", grouped, k.float()).reshape(batch, heads, q_len, k_len)
    scores = (scores * scale).masked_fill(~allowed, -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks.float()[:, None, None].expand(batch, heads, q_len, 1)), dim=3)
    weights = scores.softmax(3)[..., :k_len].masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    weights = weights.reshape(batch, kv_heads, heads // kv_heads, q_len, k_len)
    return torch.einsum("bgrqk,bgke->bgrqe", weights, v.float()).reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
