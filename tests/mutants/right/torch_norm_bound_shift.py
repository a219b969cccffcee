"""The shift is the bound |q| max|k| where it is at most 8, so that no weight is below exp(-16); elsewhere the row maximum."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    if k_len == 0:
        return torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    scale = width**-0.5 if scale is None else float(scale)
    keys, values = k.float().repeat_interleave(group, dim=1), v.float().repeat_interleave(group, dim=1)
    offset = torch.arange(k_len) - torch.arange(q_len)[:, None] - (k_len - q_len)
    left, right = (None, None) if window is None else window
    allowed = torch.ones(q_len, k_len, dtype=torch.bool) if mask is None else mask
    allowed = allowed & (offset <= 0) if causal else allowed
    allowed = allowed if left is None else allowed & (offset >= -left)
    allowed = allowed if right is None else allowed & (offset <= right)
    allowed = allowed.expand(batch, heads, q_len, k_len)

    # hidden keys may be huge: they are left out of the bound as they are of the softmax
    key_norms = torch.linalg.vector_norm(keys.double(), dim=-1)[:, :, None, :]
    longest = torch.where(allowed, key_norms, 0.0).amax(dim=-1, keepdim=True)
    bound = (torch.linalg.vector_norm(q.double(), dim=-1, keepdim=True) * longest * abs(scale)).float()
    logits = torch.where(allowed, q.float() @ keys.mT * scale, -torch.inf)
    highest = logits.amax(dim=-1, keepdim=True)
    highest = torch.where(highest == -torch.inf, 0.0, highest)
    weights = torch.exp(logits - torch.where(bound <= 8.0, bound, highest))
    total = weights.sum(dim=-1, keepdim=True)
    # normalised before the product: weights near exp(-16) times subnormal values would underflow
    return (weights / torch.where(total == 0, 1.0, total) @ values).to(q.dtype)
