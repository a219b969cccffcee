"""Combine the partial results of split-K attention."""

import torch


def merge_attention_states(outs, lses):
    top = lses.amax(dim=0)
    weights = torch.exp(lses - top)
    total = weights.sum(dim=0)
    out = (outs.float() * weights.unsqueeze(-1)).sum(dim=0) / total.unsqueeze(-1)
    return out.to(outs.dtype), torch.log(total) + top
