"""Merge partial attention results, part by part, with a running maximum."""

import torch


def merge_attention_states(outs, lses):
    parts, batch, heads, length, width = outs.shape
    top = torch.zeros(batch, heads, length)
    for part in range(parts):
        top = torch.maximum(top, lses[part].float())
    total = torch.zeros(batch, heads, length)
    weighted = torch.zeros(batch, heads, length, width)
    for part in range(parts):
        weight = torch.exp(lses[part].float() - top)
        total += weight
        weighted += weight.unsqueeze(-1) * outs[part].float()
    out = weighted / total.masked_fill(total == 0, 1.0).unsqueeze(-1)
    return out.to(outs.dtype), torch.log(total) + top
