"""Splits of 1, 1, 2, 3, 5, 8, ... keys, taken from the end of the sequence; the last split takes what is left."""

import torch


def _fibonacci_lengths(length, num_splits):
    lengths, current, following = [], 1, 1
    while length > 0 and len(lengths) < num_splits - 1:
        lengths.append(min(current, length))
        length -= lengths[-1]
        current, following = following, current + following
    return lengths + [length] if length > 0 else lengths


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None, num_splits=6):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    full = (batch, heads, q_len, k_len)
    scale = width**-0.5 if scale is None else float(scale)
    gap = torch.arange(k_len) - torch.arange(q_len)[:, None] - (k_len - q_len)
    allowed = torch.ones(full, dtype=torch.bool) if mask is None else mask.expand(full).clone()
    if causal:
        allowed &= gap <= 0
    if window is not None and window[0] is not None:
        allowed &= gap >= -window[0]
    if window is not None and window[1] is not None:
        allowed &= gap <= window[1]

    maxima, totals, weighted = [], [], []
    stop = k_len
    for length in _fibonacci_lengths(k_len, num_splits):
        tile = slice(stop - length, stop)
        stop -= length
        keys = k[:, :, tile].float().repeat_interleave(group, dim=1)
        values = v[:, :, tile].float().repeat_interleave(group, dim=1)
        logits = torch.matmul(q.float(), keys.transpose(-1, -2)) * scale
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        if bias is not None:
            logits = logits + bias.expand(full)[..., tile].float()
        logits = logits.masked_fill(~allowed[..., tile], -torch.inf)
        top = logits.amax(dim=-1, keepdim=True)
        weights = torch.exp(logits - top.masked_fill(top == -torch.inf, 0.0))
        maxima.append(top)
        totals.append(weights.sum(dim=-1, keepdim=True))
        weighted.append(weights @ values)
    # the sink is merged once, as a part of its own with weight one and no value
    maxima.append((torch.full((heads,), -torch.inf) if sinks is None else sinks.float())[:, None, None].expand(batch, heads, q_len, 1))
    totals.append(torch.ones(batch, heads, q_len, 1))
    weighted.append(torch.zeros(batch, heads, q_len, v.shape[3]))
    maxima = torch.stack(maxima)
    top = maxima.amax(dim=0)
    factors = torch.exp(maxima - top.masked_fill(top == -torch.inf, 0.0))
    total = (factors * torch.stack(totals)).sum(dim=0)
    out = (factors * torch.stack(weighted)).sum(dim=0) / total.masked_fill(total == 0, 1.0)
    return out.to(q.dtype)
