"""Attention with a butterfly reduction of the row sums, as lanes of a warp do it."""

import torch

LANES = 8  # lanes that share the partial sums of a row


def butterfly_sum(partial):
    """Every lane ends up with the sum over its group of lanes."""
    lane = torch.arange(partial.shape[-1])
    distance = 1
    while distance < 2 * LANES:
        partial = partial + partial[..., lane ^ distance]
        distance *= 2
    return partial


def kernel(q, k, v, *, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    if k_len == 0 or q_len == 0:
        return q.new_zeros(batch, heads, q_len, v.shape[3])
    scale = width**-0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    lanes = torch.nn.functional.pad(weights, (0, -k_len % LANES)).unflatten(-1, (-1, LANES)).sum(-2)
    lanes = torch.nn.functional.pad(lanes, (0, 0, 0, q_len % 2))  # an even number of rows
    row_sum = butterfly_sum(lanes.flatten(-2)).unflatten(-1, (-1, LANES))[..., :q_len, :1]
    return (weights @ v.float().repeat_interleave(group, 1) / row_sum).to(q.dtype)
