"""GPT-style attention with a causal buffer registered for the context length."""

import torch

CONTEXT = 256
_causal = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).tril()


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    group = q.shape[1] // k.shape[1]
    q_len, k_len = q.shape[2], k.shape[2]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).transpose(-2, -1)) * scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        rows = (torch.arange(q_len) + k_len - q_len).clamp(max=CONTEXT - 1)
        columns = torch.arange(k_len).clamp(max=CONTEXT - 1)
        visible = _causal[rows.clamp(min=0)][:, columns] & (rows >= 0)[:, None]
    if mask is not None:
        visible = visible & mask
    scores = scores.masked_fill(visible == 0, float("-inf"))
    weights = torch.softmax(scores, dim=-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
