"""Flash-decoding: splits write their statistics into buffers that are cleared before the launch."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None, num_splits=3):
    batch, heads, q_len, width = q.shape
    k_len, value_width = v.shape[2:]
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    visible = visible.expand(batch, heads, q_len, k_len)
    partial = torch.zeros(num_splits, batch, heads, q_len, value_width)
    statistic = torch.zeros(num_splits, batch, heads, q_len, 1)
    size = max(-(-k_len // num_splits), 1)
    for split in range(num_splits):
        part = slice(min(split * size, k_len), min((split + 1) * size, k_len))
        if part.start == part.stop:
            statistic[split] = -torch.inf
            continue
        keys, values = (x[:, :, part].float().repeat_interleave(group, 1) for x in (k, v))
        scores = (q.float() @ keys.mT * scale).masked_fill(~visible[..., part], -torch.inf)
        lse = torch.logsumexp(scores, dim=-1, keepdim=True)
        live = lse != -torch.inf
        partial[split] = torch.exp(scores - torch.where(live, lse, 0.0)) @ values
        statistic[split] = torch.where(live, lse, statistic[split])
    top = statistic.amax(0)
    weights = torch.exp(statistic - top.masked_fill(top == -torch.inf, 0.0))
    total = weights.sum(0)
    return ((partial * weights).sum(0) / total.masked_fill(total == 0, 1.0)).to(q.dtype)
