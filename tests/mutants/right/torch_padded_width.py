"""Widths are padded with zeros to a multiple of 8 and lengths to a multiple of 16; the scale keeps the true width."""

import torch
import torch.nn.functional as F


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, value_width, group = k.shape[2], v.shape[3], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    more_rows, more_keys = -q_len % 16, -k_len % 16
    queries = F.pad(q.float(), (0, -width % 8, 0, more_rows))
    keys = F.pad(k.float(), (0, -width % 8, 0, more_keys)).repeat_interleave(group, dim=1)
    values = F.pad(v.float(), (0, -value_width % 8, 0, more_keys)).repeat_interleave(group, dim=1)
    distance = torch.arange(k_len) - torch.arange(q_len)[:, None] - (k_len - q_len)
    allowed = torch.ones(batch, heads, q_len, k_len, dtype=torch.bool)
    if mask is not None:
        allowed &= mask
    if causal:
        allowed &= distance <= 0
    if window is not None and window[0] is not None:
        allowed &= distance >= -window[0]
    if window is not None and window[1] is not None:
        allowed &= distance <= window[1]
    allowed = F.pad(allowed, (0, more_keys, 0, more_rows), value=False)

    logits = queries @ keys.mT * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if bias is not None:
        logits = logits + F.pad(bias.float().expand(batch, heads, q_len, k_len), (0, more_keys, 0, more_rows))
    logits = logits.masked_fill(~allowed, -torch.inf)
    column = torch.full((heads,), -torch.inf) if sinks is None else sinks.float()
    column = column[:, None, None].expand(batch, heads, q_len + more_rows, 1)
    highest = torch.cat([logits, column], dim=-1).amax(dim=-1, keepdim=True)
    highest = highest.masked_fill(highest == -torch.inf, 0.0)
    weights = torch.exp(logits - highest)
    total = weights.sum(dim=-1, keepdim=True) + torch.exp(column - highest)
    out = weights @ values / total.masked_fill(total == 0, 1.0)
    return out[:, :, :q_len, :value_width].to(q.dtype, memory_format=torch.contiguous_format)
