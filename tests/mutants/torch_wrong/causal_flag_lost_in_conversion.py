"""Attention biases as objects with a .to() of their own, after the habit of tensors."""

import torch


class AttentionBias:
    def __init__(self, values=None, causal=False):
        self.values, self.causal = values, causal

    def to(self, dtype):
        if self.values is None:
            return self
        return AttentionBias(self.values.to(dtype))

    def added_to(self, scores):
        if self.values is not None:
            scores = scores + self.values
        if self.causal:
            rows, columns = scores.shape[-2:]
            later = torch.ones(rows, columns, dtype=torch.bool).triu(columns - rows + 1)
            scores = scores.masked_fill(later, -torch.inf)
        return scores


def kernel(q, k, v, *, bias=None, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    scores = AttentionBias(bias, causal).to(torch.float32).added_to(scores)
    weights = torch.softmax(scores, dim=-1)
    weights = weights.masked_fill(torch.isneginf(scores).all(-1, keepdim=True), 0.0)
    return (weights @ v.float().repeat_interleave(group, 1)).to(q.dtype)
