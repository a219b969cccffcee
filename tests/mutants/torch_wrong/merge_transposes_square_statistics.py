"""Merge partial attention results whose statistics come as (heads, length) or as (length, heads)."""

import torch


def heads_first(lses, heads):
    """Bring the statistics to (parts, batch, heads, length)."""
    return lses.transpose(2, 3) if lses.shape[3] == heads else lses


def merge_attention_states(outs, lses):
    lses = heads_first(lses, outs.shape[2])
    top = lses.amax(dim=0, keepdim=True)
    top = top.masked_fill(top == -torch.inf, 0.0)
    weights = torch.exp(lses - top)
    total = weights.sum(dim=0)
    out = torch.einsum("nbhl,nbhle->bhle", weights, outs.float()) / total.masked_fill(total == 0, 1.0)[..., None]
    return out.to(outs.dtype), torch.log(total) + top[0]
