"""Attention in chunks of equal size: the last one is moved back so that it is whole."""

import torch

CHUNK = 96


def kernel(q, k, v, *, mask=None, scale=None, softcap=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    allowed = torch.ones((), dtype=torch.bool) if mask is None else mask
    allowed = allowed.expand(batch, heads, q_len, k_len)
    state_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    state_sum = torch.zeros_like(state_max)
    state_out = torch.zeros(batch, heads, q_len, value_width)
    chunks = -(-k_len // CHUNK)
    for index in range(chunks):
        start = min(index * CHUNK, max(k_len - CHUNK, 0))
        chunk = slice(start, min(start + CHUNK, k_len))
        scores = q.float() @ k[:, :, chunk].float().repeat_interleave(group, dim=1).mT * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores = scores.masked_fill(~allowed[..., chunk], -torch.inf)
        new_max = torch.maximum(state_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift), torch.exp(state_max - shift)
        state_sum = state_sum * decay + weights.sum(-1, keepdim=True)
        state_out = state_out * decay + weights @ v[:, :, chunk].float().repeat_interleave(group, dim=1)
        state_max = new_max
    return torch.where(state_sum > 0, state_out / state_sum, 0.0).to(q.dtype)
