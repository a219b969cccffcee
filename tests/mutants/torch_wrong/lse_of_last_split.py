"""Split-K attention with its logsumexp."""

import torch

SPLIT = 128


def attention_with_lse(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    position = torch.arange(k_len - q_len, k_len)[:, None]
    outs = [torch.zeros(batch, heads, q_len, v.shape[3])]
    lses = [torch.full((batch, heads, q_len), -torch.inf)]
    lse = lses[0]
    for start in range(0, k_len, SPLIT):
        stop = min(start + SPLIT, k_len)
        keys, values = (x[:, :, start:stop].float().repeat_interleave(group, 1) for x in (k, v))
        scores = q.float() @ keys.mT * scale
        if causal:
            scores = scores.masked_fill(torch.arange(start, stop) > position, -torch.inf)
        lse = torch.logsumexp(scores, dim=-1)
        outs.append(torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0.0).unsqueeze(-1)) @ values)
        lses.append(lse)
    total = torch.logsumexp(torch.stack(lses), dim=0)
    shift = total.masked_fill(total == -torch.inf, 0.0)
    out = sum(part * torch.exp(part_lse - shift).unsqueeze(-1) for part, part_lse in zip(outs, lses, strict=True))
    return out.to(q.dtype), lse
