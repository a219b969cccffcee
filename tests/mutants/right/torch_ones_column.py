"""V gets a column of ones, so one product of cast weights yields both sums; the online rescale then acts on one array."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, value_width, group = k.shape[2], v.shape[3], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    extended = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1).float().repeat_interleave(group, dim=1)
    keys = k.float().repeat_interleave(group, dim=1).transpose(-1, -2)
    positions = torch.arange(q_len)[:, None] + (k_len - q_len)
    mask = None if mask is None else mask.expand(batch, heads, q_len, k_len)
    highest = torch.full((batch, heads, q_len, 1), -torch.inf)
    state = torch.zeros(batch, heads, q_len, value_width + 1)
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        columns = torch.arange(start, stop)
        logits = q.float() @ keys[..., start:stop] * scale
        if causal:
            logits = logits.masked_fill(columns > positions, -torch.inf)
        if window is not None and window[0] is not None:
            logits = logits.masked_fill(columns < positions - window[0], -torch.inf)
        if window is not None and window[1] is not None:
            logits = logits.masked_fill(columns > positions + window[1], -torch.inf)
        if mask is not None:
            logits = logits.masked_fill(~mask[..., start:stop], -torch.inf)
        new_highest = torch.maximum(highest, logits.amax(dim=-1, keepdim=True))
        shift = new_highest.masked_fill(new_highest == -torch.inf, 0.0)
        weights = torch.exp(logits - shift).to(q.dtype).float()
        state = state * torch.exp(highest - shift) + weights @ extended[:, :, start:stop]
        highest = new_highest
    numerator, denominator = state.split([value_width, 1], dim=-1)
    return torch.where(denominator > 0, numerator / denominator, 0.0).to(q.dtype)
