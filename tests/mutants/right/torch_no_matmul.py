"""No matrix product at all: logits and outputs are broadcast products that are summed, a few keys at a time."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_k=8):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.float()[:, :, :, None, :]
    positions = torch.arange(q_len)[:, None] + (k_len - q_len)
    mask = None if mask is None else mask.expand(batch, heads, q_len, k_len)
    highest = torch.full((batch, heads, q_len), -torch.inf)
    total = torch.zeros(batch, heads, q_len)
    weighted = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        keys = k[:, :, start:stop].float().repeat_interleave(group, dim=1)[:, :, None]
        values = v[:, :, start:stop].float().repeat_interleave(group, dim=1)[:, :, None]
        logits = (queries * keys).sum(dim=-1) * scale  # (B, Hq, Lq, keys)
        if causal:
            logits = logits.masked_fill(torch.arange(start, stop) > positions, -torch.inf)
        if mask is not None:
            logits = logits.masked_fill(~mask[..., start:stop], -torch.inf)
        new_highest = torch.maximum(highest, logits.amax(dim=-1))
        shift = new_highest.masked_fill(new_highest == -torch.inf, 0.0)
        rescale = torch.exp(highest - shift)
        weights = torch.exp(logits - shift[..., None])
        total = total * rescale + weights.sum(dim=-1)
        weighted = weighted * rescale[..., None] + (weights[..., None] * values).sum(dim=-2)
        highest = new_highest
    return (weighted / total.masked_fill(total == 0, 1.0)[..., None]).to(q.dtype)
