"""Split-K attention: the partial sums of a head lie together, split after split."""

import torch

SPLIT = 128


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, value_width = v.shape[2:]
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    splits = max(-(-k_len // SPLIT), 1)
    out_accumulators = torch.zeros(batch, heads, splits, q_len, value_width)
    lse_accumulators = torch.full((batch, heads, splits, q_len), -torch.inf)
    limit = torch.arange(k_len - q_len, k_len)[:, None] if causal else torch.full((q_len, 1), k_len)
    for index, start in enumerate(range(0, k_len, SPLIT)):
        stop = min(start + SPLIT, k_len)
        keys, values = (x[:, :, start:stop].float().repeat_interleave(group, 1) for x in (k, v))
        scores = (q.float() @ keys.mT * scale).masked_fill(torch.arange(start, stop) > limit, -torch.inf)
        lse = torch.logsumexp(scores, dim=-1)
        out_accumulators[:, :, index] = torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]) @ values
        lse_accumulators[:, :, index] = lse

    # The combine kernel walks over rows: (rows, splits).
    statistics = lse_accumulators.view(batch, heads, q_len, splits)
    top = statistics.amax(-1, keepdim=True)
    weights = torch.exp(statistics - top.masked_fill(top == -torch.inf, 0.0))
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
    return torch.einsum("bhqs,bhsqe->bhqe", weights, out_accumulators).to(q.dtype)
