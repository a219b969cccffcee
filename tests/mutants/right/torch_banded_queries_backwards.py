"""Query blocks from last to first; each reads only the band of keys that causality and window leave it, as a narrowed view."""

import torch


def kernel(q, k, v, *, causal=False, window=None, softcap=None, scale=None, sinks=None, block_q=32):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else float(scale)
    left, right = (None, None) if window is None else window
    if causal:
        right = 0 if right is None else min(right, 0)
    column = torch.full((heads,), -torch.inf) if sinks is None else sinks.float()
    column = column.view(kv_heads, group, 1, 1)
    pieces = []
    for stop in range(q_len, 0, -block_q):
        start = max(stop - block_q, 0)
        first = 0 if left is None else max(start + k_len - q_len - left, 0)
        last = k_len if right is None else min(stop + k_len - q_len + right, k_len)
        length = max(last - first, 0)
        if length == 0:
            pieces.append(torch.zeros(batch, heads, stop - start, v.shape[3]))
            continue
        keys = k.narrow(2, first, length).float().unsqueeze(2)
        values = v.narrow(2, first, length).float().unsqueeze(2)
        queries = q.narrow(2, start, stop - start).float().unflatten(1, (kv_heads, group))
        logits = queries @ keys.mT * scale
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        distance = torch.arange(first, last) - torch.arange(start, stop)[:, None] - (k_len - q_len)
        if left is not None:
            logits = logits.masked_fill(distance < -left, -torch.inf)
        if right is not None:
            logits = logits.masked_fill(distance > right, -torch.inf)
        highest = torch.maximum(logits.amax(dim=-1, keepdim=True), column)
        highest = highest.masked_fill(highest == -torch.inf, 0.0)
        weights = torch.exp(logits - highest)
        total = weights.sum(dim=-1, keepdim=True) + torch.exp(column - highest)
        pieces.append((weights @ values / total.masked_fill(total == 0, 1.0)).flatten(1, 2))
    if not pieces:
        return torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    return torch.cat(pieces[::-1], dim=2).to(q.dtype)
