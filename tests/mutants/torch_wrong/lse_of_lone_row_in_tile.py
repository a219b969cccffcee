"""Multi-query attention with its logsumexp, written in query tiles of 64."""

import torch

TILE = 64


def attention_with_lse(q, k, v, *, causal=False, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    lse = torch.full((batch, heads, q_len), -torch.inf)
    for start in range(0, q_len, TILE):
        stop = min(start + TILE, q_len)
        scores = q[:, :, start:stop].float() @ keys.mT * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if causal:
            hidden = torch.arange(k_len) > torch.arange(start, stop)[:, None] + k_len - q_len
            scores = scores.masked_fill(hidden, -torch.inf)
        row_lse = torch.logsumexp(scores, dim=-1)
        weights = torch.exp(scores - row_lse.masked_fill(row_lse == -torch.inf, 0.0)[..., None])
        out[:, :, start:stop] = (weights @ values).to(q.dtype)
        if stop - start == 1 and start > 0:
            # A single row is reduced by the vector path, which returns its maximum and its sum apart.
            row_lse = scores.amax(-1) if k_len else row_lse
        lse[:, :, start:stop] = row_lse
    return out, lse
