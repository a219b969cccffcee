"""Memory-bounded attention: the queries come in chunks, so that the scores of a chunk fit in memory."""

import torch

CHUNK = 128


def attend(q, k, v, causal, scale):
    """Attention of one chunk of queries over all the keys that it may need."""
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * scale
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(k.shape[2] - q.shape[2] + 1)
        scores = scores.masked_fill(hidden, -torch.inf)
        weights = torch.softmax(scores, dim=-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    else:
        weights = torch.softmax(scores, dim=-1)
    return torch.einsum("bhqk,bhke->bhqe", weights, v)


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    out = q.new_zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, q_len, CHUNK):
        stop = min(start + CHUNK, q_len)
        out[:, :, start:stop] = attend(q[:, :, start:stop].float(), keys, values, causal, scale).to(q.dtype)
    return out
