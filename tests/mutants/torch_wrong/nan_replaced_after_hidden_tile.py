"""Online softmax over key tiles, robust against rows without keys."""

import torch


class OnlineSoftmax:
    """Running maximum, denominator and weighted sum of the values for every row."""

    def __init__(self, shape, value_width):
        self.top = torch.full((*shape, 1), -torch.inf)
        self.total = torch.zeros(*shape, 1)
        self.weighted = torch.zeros(*shape, value_width)

    def update(self, scores, values):
        top = torch.maximum(self.top, scores.amax(dim=-1, keepdim=True))
        weights, decay = torch.exp(scores - top), torch.exp(self.top - top)
        self.total = self.total * decay + weights.sum(dim=-1, keepdim=True)
        self.weighted = self.weighted * decay + weights @ values
        self.top = top

    def result(self):
        return torch.nan_to_num(self.weighted / self.total)


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_k=48):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    position = torch.arange(q_len)[:, None] + k_len - q_len
    mask = None if mask is None else mask.expand(batch, heads, q_len, k_len)
    state = OnlineSoftmax((batch, heads, q_len), value_width)
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        scores = q.float() @ k[:, :, start:stop].float().repeat_interleave(group, 1).mT * scale
        if causal:
            scores = scores.masked_fill(torch.arange(start, stop) > position, -torch.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., start:stop], -torch.inf)
        state.update(scores, v[:, :, start:stop].float().repeat_interleave(group, 1))
    return state.result().to(q.dtype)
