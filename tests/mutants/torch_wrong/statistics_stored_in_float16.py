"""Merge partial attention results; the logsumexps are exchanged in a compact format."""

import torch


def merge_attention_states(outs, lses):
    lses = lses.to(torch.float16).float()
    top = lses.amax(dim=0, keepdim=True)
    top = torch.where(torch.isinf(top), 0.0, top)
    weights = torch.exp(lses - top)
    total = weights.sum(dim=0)
    out = (outs.float() * weights[..., None]).sum(dim=0)
    out = out / torch.where(total > 0, total, 1.0)[..., None]
    return out.to(outs.dtype), torch.log(total) + top[0]
