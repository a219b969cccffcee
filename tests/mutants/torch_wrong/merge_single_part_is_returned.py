"""Merge partial attention results; one part needs no merging."""

import torch


def merge_attention_states(outs, lses):
    if outs.shape[0] == 1:
        return outs[0], lses[0]
    total = torch.logsumexp(lses, dim=0)
    weights = torch.exp(lses - torch.where(total == -torch.inf, 0.0, total))
    return torch.einsum("nbhl,nbhle->bhle", weights, outs.float()).to(outs.dtype), total
