"""merge_attention_states one part after the other in float32, with a running maximum, as a streaming combine kernel does."""

import torch


def merge_attention_states(outs, lses):
    _, batch, heads, length, width = outs.shape
    highest = torch.full((batch, heads, length), -torch.inf)
    total = torch.zeros(batch, heads, length)
    mixed = torch.zeros(batch, heads, length, width)
    for out, lse in zip(outs.unbind(0), lses.float().unbind(0), strict=True):
        new_highest = torch.maximum(highest, lse)
        shift = new_highest.masked_fill(new_highest == -torch.inf, 0.0)
        rescale, weight = torch.exp(highest - shift), torch.exp(lse - shift)
        part = out.float().masked_fill((lse == -torch.inf)[..., None], 0.0)
        mixed = mixed * rescale[..., None] + part * weight[..., None]
        total = total * rescale + weight
        highest = new_highest
    merged = mixed / total.masked_fill(total == 0, 1.0)[..., None]
    return merged.to(outs.dtype), (highest + total.log()).to(lses.dtype)
