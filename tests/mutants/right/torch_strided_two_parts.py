"""Strided pattern as two heads of attention, near and far, merged by their logsumexps."""

import torch


def part(scores, visible, v):
    scores = scores.masked_fill(~visible, float("-inf"))
    lse = torch.logsumexp(scores, dim=-1, keepdim=True)
    weights = torch.exp(scores - torch.where(lse.isinf(), torch.zeros_like(lse), lse))
    return weights @ v, lse


def kernel(q, k, v, *, stride, scale=None):
    length, dim = q.shape[2:]
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1).float() for x in (k, v))
    scores = q.float() @ k.transpose(-1, -2) * (dim**-0.5 if scale is None else scale)
    behind = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    near = (behind >= 0) & (behind < stride)
    far = (behind >= stride) & (behind % stride == 0)
    near_out, near_lse = part(scores, near, v)
    far_out, far_lse = part(scores, far, v)
    lse = torch.logaddexp(near_lse, far_lse)
    return (near_out * torch.exp(near_lse - lse) + far_out * torch.exp(far_lse - lse)).to(q.dtype)
