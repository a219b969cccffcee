"""One head of one sequence is written with plain matrices; torch.vmap lifts it over group, key head and batch."""

import torch


def _one_head(query, key, value, hidden, scale):
    logits = (query @ key.T * scale).masked_fill(hidden, -torch.inf)
    highest = logits.amax(dim=1, keepdim=True)
    weights = torch.exp(logits - highest.masked_fill(highest == -torch.inf, 0.0))
    total = weights.sum(dim=1, keepdim=True)
    return weights @ value / total.masked_fill(total == 0, 1.0)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    if 0 in (batch, q_len, k_len):
        return torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    scale = width**-0.5 if scale is None else float(scale)
    hidden = torch.zeros(batch, heads, q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = hidden | torch.ones(q_len, k_len, dtype=torch.bool).triu(k_len - q_len + 1)
    if mask is not None:
        hidden = hidden | ~mask
    grouped = (batch, kv_heads, heads // kv_heads, q_len)
    over_group = torch.vmap(_one_head, in_dims=(0, None, None, 0, None))
    over_heads = torch.vmap(over_group, in_dims=(0, 0, 0, 0, None))
    over_batch = torch.vmap(over_heads, in_dims=(0, 0, 0, 0, None))
    out = over_batch(q.float().reshape(*grouped, width), k.float(), v.float(), hidden.reshape(*grouped, k_len), scale)
    return out.reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
