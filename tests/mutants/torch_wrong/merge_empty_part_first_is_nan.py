"""Merge partial attention results with a sigmoid, as ring attention does."""

import torch
from torch.nn import functional as F


def merge_attention_states(outs, lses):
    out, lse = outs[0].float(), lses[0].float().clone()
    out = out.masked_fill((lse == -torch.inf).unsqueeze(-1), 0.0)
    for block_out, block_lse in zip(outs[1:].float(), lses[1:].float(), strict=True):
        share, rest = torch.sigmoid(block_lse - lse), torch.sigmoid(lse - block_lse)
        out = rest.unsqueeze(-1) * out + share.unsqueeze(-1) * block_out
        lse = lse - F.logsigmoid(lse - block_lse)
    return out.to(outs.dtype), lse
