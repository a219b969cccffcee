"""Merge partial attention results in place of the first one, which is not needed any more."""

import torch


def merge_attention_states(outs, lses):
    total = torch.logsumexp(lses, dim=0)
    shift = total.masked_fill(total == -torch.inf, 0.0)
    weights = torch.exp(lses - shift).to(torch.float32)
    accumulator = outs[0].float()
    accumulator.mul_(weights[0][..., None])
    for part, weight in zip(outs[1:], weights[1:], strict=True):
        accumulator.addcmul_(part.float(), weight[..., None])
    return accumulator.to(outs.dtype, copy=True), total
