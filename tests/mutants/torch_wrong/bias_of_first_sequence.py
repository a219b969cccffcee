"""Attention on flattened heads; the bias is laid out once for all heads."""

import torch


def flat_bias(bias, batch, heads):
    """The bias as (batch * heads, rows, columns); rows and columns may be one."""
    bias = bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))
    per_head = bias[0].expand(heads, *bias.shape[2:])
    return per_head.repeat(batch, 1, 1)


def kernel(q, k, v, *, bias=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, value_width = v.shape[2:]
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    if batch == 0:
        return q.new_zeros(0, heads, q_len, value_width)
    queries = q.float().reshape(batch * heads, q_len, width)
    keys = k.float().repeat_interleave(group, 1).reshape(batch * heads, k_len, width)
    values = v.float().repeat_interleave(group, 1).reshape(batch * heads, k_len, value_width)
    scores = torch.bmm(queries, keys.mT) * scale
    if bias is not None:
        scores = scores + flat_bias(bias.float(), batch, heads)
    if causal:
        hidden = torch.ones(q_len, k_len, dtype=torch.bool).triu(k_len - q_len + 1)
        scores = scores.masked_fill(hidden, -torch.inf)
        weights = scores.softmax(-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    else:
        weights = scores.softmax(-1)
    return torch.bmm(weights, values).reshape(batch, heads, q_len, value_width).to(q.dtype)
