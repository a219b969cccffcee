"""Fold partial attention results one by one into a running state."""

import torch


def fold(out, lse, other, other_lse):
    """Merge two states; an empty one weighs nothing."""
    merged = torch.logaddexp(lse, other_lse)
    shift = merged.masked_fill(merged == -torch.inf, 0.0)
    out = out * torch.exp(lse - shift).unsqueeze(-1) + other * torch.exp(other_lse - shift).unsqueeze(-1)
    return out, merged


def merge_attention_states(outs, lses):
    out, running = outs[0].float() * (lses[0] != -torch.inf).unsqueeze(-1), lses[0]
    lse = lses[0].clone()
    for other, lse in zip(outs[1:], lses[1:], strict=True):
        out, running = fold(out, running, other.float(), lse)
    return out.to(outs.dtype), lse.clone()
