"""The denominator is summed in float32 before the weights are cast to the storage dtype, as FlashAttention does."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, sinks=None, block_q=128):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    if k_len == 0:
        return out
    scale = width**-0.5 if scale is None else float(scale)
    left, right = (None, None) if window is None else window
    mask = None if mask is None else mask.expand(batch, heads, q_len, k_len)
    for head in range(heads):
        keys, values = k[:, head // (heads // kv_heads)].float(), v[:, head // (heads // kv_heads)].float()
        for start in range(0, q_len, block_q):
            rows = slice(start, min(start + block_q, q_len))
            logits = q[:, head, rows].float() @ keys.transpose(1, 2) * scale
            distance = torch.arange(k_len) - torch.arange(rows.start, rows.stop)[:, None] - (k_len - q_len)
            hidden = torch.zeros_like(distance, dtype=torch.bool) if not causal else distance > 0
            if left is not None:
                hidden = hidden | (distance < -left)
            if right is not None:
                hidden = hidden | (distance > right)
            if mask is not None:
                hidden = hidden | ~mask[:, head, rows]
            logits = logits.masked_fill(hidden, -torch.inf)
            highest = logits.amax(dim=-1, keepdim=True)
            highest = highest.masked_fill(highest == -torch.inf, 0.0)
            weights = torch.exp(logits - highest)
            total = weights.sum(dim=-1, keepdim=True)
            weighted = weights.to(q.dtype).float() @ values
            if sinks is not None:
                # the shift of the cast weights is the keys' own maximum: a large sink must not push them below float16's range
                sink = sinks[head].float()
                top = torch.maximum(highest, sink)
                weighted = weighted * torch.exp(highest - top)
                total = total * torch.exp(highest - top) + torch.exp(sink - top)
            out[:, head, rows] = (weighted / total.masked_fill(total == 0, 1.0)).to(q.dtype)
    return out
