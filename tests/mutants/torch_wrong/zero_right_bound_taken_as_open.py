"""Local attention with a band given by its two bounds."""

import torch


def kernel(q, k, v, *, causal=False, window=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    left, right = window or (None, None)
    position = torch.arange(q_len)[:, None] + k_len - q_len
    key = torch.arange(k_len)[None, :]
    visible = key <= position if causal else torch.ones(q_len, k_len, dtype=torch.bool)
    if left is not None:
        visible = visible & (key >= position - left)
    if right:
        visible = visible & (key <= position + right)
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT) * scale
    scores = scores.masked_fill(~visible, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.float().view(1, -1, 1, 1).expand(batch, heads, q_len, 1)], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., :k_len].masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
