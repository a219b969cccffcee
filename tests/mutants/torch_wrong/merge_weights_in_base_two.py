"""Merge partial attention results; the statistics are logarithms, exp2 is the fast exponential."""

import torch


def merge_attention_states(outs, lses):
    top = lses.amax(dim=0, keepdim=True)
    top = torch.where(top == -torch.inf, 0.0, top)
    weights = torch.exp2(lses - top)
    total = weights.sum(dim=0, keepdim=True)
    normalised = weights / torch.where(total == 0, 1.0, total)
    out = (normalised[..., None] * outs.float()).sum(dim=0)
    return out.to(outs.dtype), (top + torch.log2(total))[0]
