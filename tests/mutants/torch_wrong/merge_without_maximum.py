"""Combine partial attention results by their denominators."""

import torch


def merge_attention_states(outs, lses):
    denominators = lses.exp()
    total = denominators.sum(dim=0)
    weighted = torch.einsum("nbhl,nbhle->bhle", denominators, outs.float())
    out = weighted / total.masked_fill(total == 0, 1.0)[..., None]
    return out.to(outs.dtype), total.log()
