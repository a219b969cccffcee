"""Grouped heads by a stride-0 expand of K and V, never copied; hidden logits are dropped through an additive -inf mask."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    grouped = (batch, kv_heads, heads // kv_heads, q_len, k_len)
    scale = width**-0.5 if scale is None else float(scale)
    additive = torch.zeros(q_len, k_len)
    steps = torch.arange(k_len)[None, :] - torch.arange(q_len)[:, None] - (k_len - q_len)
    if causal:
        additive[steps > 0] = -torch.inf
    if window is not None and window[0] is not None:
        additive[steps < -window[0]] = -torch.inf
    if window is not None and window[1] is not None:
        additive[steps > window[1]] = -torch.inf
    additive = additive.expand(batch, heads, q_len, k_len)
    if mask is not None:
        additive = additive + torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    keys = k.float().unsqueeze(2).expand(batch, kv_heads, heads // kv_heads, k_len, width)
    values = v.float().unsqueeze(2).expand(batch, kv_heads, heads // kv_heads, k_len, v.shape[3])
    logits = torch.matmul(q.float().reshape(*grouped[:4], width), keys.mT) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits.reshape(batch, heads, q_len, k_len)
    if bias is not None:
        logits = logits + bias.float()
    # a product with garbage may have overflowed, and inf + -inf would be NaN: make it finite, then hide it
    logits = torch.nan_to_num(logits, nan=0.0, neginf=-torch.inf) + additive
    column = torch.full((heads,), -torch.inf) if sinks is None else sinks.float()
    logits = torch.cat([column[:, None, None].expand(batch, heads, q_len, 1), logits], dim=-1)
    highest = logits.amax(dim=-1, keepdim=True)
    weights = torch.exp(logits - torch.where(highest.isneginf(), 0.0, highest))
    total = weights.sum(dim=-1, keepdim=True)
    out = torch.matmul(weights[..., 1:].reshape(grouped), values).reshape(batch, heads, q_len, v.shape[3])
    return (out / torch.where(total == 0, 1.0, total)).to(q.dtype)
