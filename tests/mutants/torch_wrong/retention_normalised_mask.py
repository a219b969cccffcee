"""Retention in parallel, the decay as exponentials of a difference of positions."""

import torch


def kernel(q, k, v, decay, *, scale=None):
    length = q.shape[2]
    at = torch.arange(length, dtype=torch.float32)
    log_gamma = decay.float().log()[:, None, None]
    mask = torch.where(at[:, None] >= at[None, :], torch.exp(log_gamma * (at[:, None] - at[None, :]).clamp(min=0)), 0.0)
    mask = mask / mask.sum(dim=-1, keepdim=True).sqrt()
    scores = q.float() @ k.float().transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return ((scores * mask) @ v.float()).to(q.dtype)
