"""Longformer-style attention: a sliding window plus a few global tokens, one chunk of queries at a time."""

import torch


def kernel(q, k, v, *, window, global_tokens, causal=False, scale=None, global_self=True, global_rows=True):
    batch, heads, length, dim = q.shape
    repeat = heads // k.shape[1]
    k, v = k.repeat_interleave(repeat, dim=1).float(), v.repeat_interleave(repeat, dim=1).float()
    scale = dim**-0.5 if scale is None else scale
    tokens = torch.tensor(sorted(set(global_tokens)), dtype=torch.long)
    is_global = torch.zeros(length, dtype=torch.bool)
    is_global[tokens] = True
    out = torch.zeros(batch, heads, length, v.shape[-1])
    chunk = 32
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        rows = torch.arange(start, stop)
        low, high = max(start - window, 0), min(stop + window, length)
        near = torch.arange(low, high)
        far = tokens[(tokens < low) | (tokens >= high)]
        keys = torch.cat([near, far])
        visible = ((rows[:, None] - keys[None, :]).abs() <= window) | is_global[keys][None, :]
        if not global_self:
            visible = visible & ~(is_global[rows][:, None] & (rows[:, None] == keys[None, :]))
        if causal:
            visible = visible & (keys[None, :] <= rows[:, None])
        scores = q[:, :, start:stop].float() @ k[:, :, keys].transpose(-1, -2) * scale
        weights = torch.softmax(scores.masked_fill(~visible, float("-inf")), dim=-1).nan_to_num(0.0)
        out[:, :, start:stop] = weights @ v[:, :, keys]
    if global_rows and len(tokens) > 1:
        visible = torch.ones(len(tokens), length, dtype=torch.bool)
        if not global_self:
            visible[torch.arange(len(tokens)), tokens] = False
        if causal:
            visible = visible & (torch.arange(length)[None, :] <= tokens[:, None])
        scores = q[:, :, tokens].float() @ k.transpose(-1, -2) * scale
        weights = torch.softmax(scores.masked_fill(~visible, float("-inf")), dim=-1).nan_to_num(0.0)
        out[:, :, tokens] = weights @ v
    return out.to(q.dtype)
