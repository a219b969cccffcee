"""Ring-attention merge: the running output and each new block's are mixed by the sigmoid of their log-sum difference."""

import torch
import torch.nn.functional as F


def _block(queries, keys, values, hidden):
    logits = (queries @ keys.mT).masked_fill(hidden, -torch.inf)
    highest = logits.amax(dim=-1, keepdim=True)
    shift = highest.masked_fill(highest == -torch.inf, 0.0)
    weights = torch.exp(logits - shift)
    total = weights.sum(dim=-1, keepdim=True)
    lse = shift.double() + total.double().log()  # log(0) = -inf marks a block without a visible key
    return weights @ values / total.masked_fill(total == 0, 1.0), lse


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.float() * scale
    mask = None if mask is None else mask.expand(batch, heads, q_len, k_len)
    out = torch.zeros(batch, heads, q_len, v.shape[3])
    lse = torch.full((batch, heads, q_len, 1), -torch.inf, dtype=torch.float64)
    for start in range(0, k_len, block_k):
        tile = slice(start, min(start + block_k, k_len))
        distance = torch.arange(tile.start, tile.stop) - torch.arange(q_len)[:, None] - (k_len - q_len)
        hidden = distance > 0 if causal else torch.zeros_like(distance, dtype=torch.bool)
        if window is not None and window[0] is not None:
            hidden = hidden | (distance < -window[0])
        if window is not None and window[1] is not None:
            hidden = hidden | (distance > window[1])
        if mask is not None:
            hidden = hidden | ~mask[..., tile]
        keys = k[:, :, tile].float().repeat_interleave(group, dim=1)
        values = v[:, :, tile].float().repeat_interleave(group, dim=1)
        block_out, block_lse = _block(queries, keys, values, hidden)
        # -inf on both sides: nothing seen yet and nothing new, so the zero output may be mixed with itself
        neither = (lse == -torch.inf) & (block_lse == -torch.inf)
        difference = (block_lse - lse).masked_fill(neither, 0.0)
        # two sigmoids instead of out - sigmoid * (out - block_out), which would cancel when the outputs differ in size
        out = out * torch.sigmoid(-difference).float() + block_out * torch.sigmoid(difference).float()
        lse = torch.where(difference > 0, block_lse, lse) + F.softplus(-difference.abs()).masked_fill(neither, 0.0)
    return out.to(q.dtype)
