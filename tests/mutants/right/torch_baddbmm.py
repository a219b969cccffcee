"""Heads folded into the batch; scale and bias are the alpha and the summand of one torch.baddbmm."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, value_width, group = k.shape[2], v.shape[3], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    folded = (batch * heads, q_len, k_len)
    summand = torch.zeros(()) if bias is None else bias.float()
    summand = summand.expand(batch, heads, q_len, k_len).reshape(folded)
    queries = q.float().reshape(batch * heads, q_len, width)
    keys = k.float().repeat_interleave(group, dim=1).reshape(batch * heads, k_len, width)
    values = v.float().repeat_interleave(group, dim=1).reshape(batch * heads, k_len, value_width)
    logits = torch.baddbmm(summand, queries, keys.transpose(1, 2), beta=1.0, alpha=scale)
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = torch.arange(k_len) > torch.arange(q_len)[:, None] + (k_len - q_len)
    if mask is not None:
        hidden = (hidden | ~mask).expand(batch, heads, q_len, k_len).reshape(folded)
    logits = logits.masked_fill(hidden, float("-inf"))
    # one more column, so that a maximum exists even without keys: the sink, or -inf
    column = torch.full((heads,), float("-inf")) if sinks is None else sinks.float()
    column = column.repeat(batch)[:, None, None].expand(batch * heads, q_len, 1)
    highest = torch.cat([logits, column], dim=-1).amax(dim=-1, keepdim=True)
    highest = highest.masked_fill(highest == float("-inf"), 0.0)
    weights = torch.exp(logits - highest)
    total = weights.sum(dim=-1, keepdim=True) + torch.exp(column - highest)
    out = torch.bmm(weights, values) / total.masked_fill(total == 0, 1.0)
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
