"""Reference-style attention in float32."""

import torch


def kernel(q, k, v, *, causal=False, scale=None):
    group = q.shape[1] // k.shape[1]
    queries, keys, values = q.float(), k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = queries @ keys.mT * scale
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        scores = scores.masked_fill(~visible, -torch.inf)
        return torch.where(visible.any(-1, keepdim=True), scores.softmax(-1), 0.0) @ values
    return scores.softmax(-1) @ values
