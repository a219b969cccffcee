"""attention_with_lse over even and odd keys apart; outputs merged by sigmoids, log-sums by torch.logaddexp."""

import torch


def _half(queries, keys, values, hidden):
    logits = (queries @ keys.mT).masked_fill(hidden, -torch.inf)
    lse = torch.logsumexp(logits.double(), dim=-1, keepdim=True)
    weights = torch.exp(logits - lse.masked_fill(lse == -torch.inf, 0.0)).float()
    return weights @ values, lse


def attention_with_lse(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys, values = k.float().repeat_interleave(group, dim=1), v.float().repeat_interleave(group, dim=1)
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k_len - q_len + 1)
    hidden = (hidden if mask is None else hidden | ~mask).expand(batch, heads, q_len, k_len)
    queries = q.float() * scale
    even, even_lse = _half(queries, keys[:, :, ::2], values[:, :, ::2], hidden[..., ::2])
    odd, odd_lse = _half(queries, keys[:, :, 1::2], values[:, :, 1::2], hidden[..., 1::2])
    difference = torch.nan_to_num(odd_lse - even_lse, nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    out = even * torch.sigmoid(-difference).float() + odd * torch.sigmoid(difference).float()
    return out.to(q.dtype), torch.logaddexp(even_lse, odd_lse).squeeze(-1).to(q.dtype)
