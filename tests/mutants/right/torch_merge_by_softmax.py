"""merge_attention_states as a softmax over the part axis of the log-sums, the empty parts selected away first."""

import torch


def merge_attention_states(outs, lses):
    if lses.shape[0] == 0:
        return outs.new_zeros(outs.shape[1:]), lses.new_full(lses.shape[1:], -torch.inf)
    wide = lses.double()
    empty = wide == -torch.inf
    share = torch.softmax(wide, dim=0).masked_fill(empty, 0.0)  # a row of empty parts is NaN until this fill
    parts = outs.double().masked_fill(empty[..., None], 0.0)
    out = torch.einsum("nbhl,nbhle->bhle", share, parts)
    return out.to(outs.dtype), torch.logsumexp(wide, dim=0).to(lses.dtype)
