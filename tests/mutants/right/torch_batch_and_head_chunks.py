"""Chunks of the batch, and within each one key head at a time with all query heads of its group as one tall matrix."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    if k_len == 0:
        return out
    scale = width**-0.5 if scale is None else float(scale)
    full = (batch, heads, q_len, k_len)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    if window is not None:
        left, right = window
        allowed = allowed if left is None else allowed.triu(k_len - q_len - left)
        allowed = allowed if right is None else allowed.tril(k_len - q_len + right)
    allowed = (allowed if mask is None else allowed & mask).expand(full)
    bias = None if bias is None else bias.expand(full)
    for some in torch.arange(batch).split(2) if batch else ():
        for kv_head in range(kv_heads):
            members = slice(kv_head * group, (kv_head + 1) * group)
            tall = q[some, members].float().reshape(len(some), group * q_len, width)
            logits = torch.bmm(tall, k[some, kv_head].float().transpose(1, 2)).mul_(scale).view(len(some), group, q_len, k_len)
            if bias is not None:
                logits = logits + bias[some, members].float()
            logits = logits.masked_fill(~allowed[some, members], -torch.inf)
            highest = logits.amax(dim=-1, keepdim=True)
            if sinks is not None:
                sink = sinks[members].float()[:, None, None]
                highest = torch.maximum(highest, sink)
            highest = highest.masked_fill(highest == -torch.inf, 0.0)
            weights = torch.exp(logits - highest)
            total = weights.sum(dim=-1, keepdim=True)
            if sinks is not None:
                total = total + torch.exp(sink - highest)
            mixed = torch.bmm(weights.view(len(some), group * q_len, k_len), v[some, kv_head].float())
            mixed = mixed.view(len(some), group, q_len, v.shape[3]) / total.masked_fill(total == 0, 1.0)
            out[some, members] = mixed.to(q.dtype)
    return out
