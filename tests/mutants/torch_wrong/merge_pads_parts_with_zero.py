"""Merge partial attention results two by two in a tree; an odd level is filled up with an empty part."""

import torch


def merge_pair(out, lse, other, other_lse):
    merged = torch.logaddexp(lse, other_lse)
    shift = merged.masked_fill(merged == -torch.inf, 0.0)
    return out * torch.exp(lse - shift)[..., None] + other * torch.exp(other_lse - shift)[..., None], merged


def merge_attention_states(outs, lses):
    out, lse = outs.float(), lses.float()
    while out.shape[0] > 1:
        if out.shape[0] % 2:
            out = torch.cat([out, torch.zeros_like(out[:1])])
            lse = torch.cat([lse, torch.zeros_like(lse[:1])])
        out, lse = merge_pair(out[0::2], lse[0::2], out[1::2], lse[1::2])
    empty = (lse[0] == -torch.inf)[..., None]
    return out[0].masked_fill(empty, 0.0).to(outs.dtype), lse[0].clone()
