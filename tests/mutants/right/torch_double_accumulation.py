"""Everything in float64 from the first product on, with torch.softmax over rows that are made non-empty by an extra column."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys, values = k.double().repeat_interleave(group, dim=1), v.double().repeat_interleave(group, dim=1)
    logits = torch.einsum("abcd,abed->abce", q.double(), keys).mul(scale)
    if softcap is not None:
        logits = logits.div(softcap).tanh().mul(softcap)
    if bias is not None:
        logits = logits + bias.double()
    reach = torch.arange(k_len).unsqueeze(0) - torch.arange(q_len).unsqueeze(1) - (k_len - q_len)
    upper = 0 if causal else k_len + q_len
    lower = -(k_len + q_len)
    if window is not None:
        lower = lower if window[0] is None else -window[0]
        upper = upper if window[1] is None else min(upper, window[1])
    allowed = (reach >= lower) & (reach <= upper)
    allowed = (allowed if mask is None else allowed & mask).expand(batch, heads, q_len, k_len)
    logits = torch.where(allowed, logits, -torch.inf)
    column = torch.full((heads,), -torch.inf, dtype=torch.float64) if sinks is None else sinks.double()
    column = column[:, None, None].expand(batch, heads, q_len, 1)
    # in an empty row any finite logit will do for the column: it takes the whole weight, and its value is nothing
    column = column.masked_fill((logits == -torch.inf).all(dim=-1, keepdim=True), 0.0)
    weights = torch.softmax(torch.cat([column, logits], dim=-1), dim=-1)[..., 1:]
    return torch.matmul(weights, values).to(q.dtype)
