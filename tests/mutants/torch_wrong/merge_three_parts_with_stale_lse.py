"""Fold partial attention results pairwise, as a ring does when the next part arrives."""

import torch


def merge_attention_states(outs, lses):
    out = torch.where((lses[0] == -torch.inf)[..., None], 0.0, outs[0].float())
    lse = lses[0].clone()
    total = lses[0].clone()
    for part, part_lse in zip(outs[1:], lses[1:], strict=True):
        merged = torch.logaddexp(lse, part_lse)
        shift = torch.where(merged == -torch.inf, 0.0, merged)
        share = torch.exp(part_lse - shift)[..., None]
        keep = torch.exp(lse - shift)[..., None]
        out = out * keep + part.float() * share
        total = torch.logaddexp(total, part_lse)
        lse = torch.maximum(lse, part_lse)
    return out.to(outs.dtype), total
