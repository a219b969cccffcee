"""Attention with one additive term: the bias, with -inf wherever a key is hidden."""

import torch


def additive_term(bias, mask, causal, shape):
    """Everything that is added to the logits, or None."""
    q_len, k_len = shape[-2:]
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    if mask is not None:
        allowed = allowed & mask
    allowed = allowed.expand(shape)
    term = torch.zeros(shape) if bias is None else bias.float()
    if term.shape != torch.Size(shape):
        term = term.expand(shape).clone()
    return term.masked_fill_(~allowed, -torch.inf), allowed


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    if mask is None and not causal:
        weights = torch.softmax(scores if bias is None else scores + bias.float(), dim=-1)
    else:
        term, allowed = additive_term(bias, mask, causal, (batch, heads, q_len, k.shape[2]))
        scores = torch.where(allowed, scores, 0.0) + term
        weights = torch.softmax(scores, dim=-1).masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    return (weights @ v.float().repeat_interleave(group, 1)).to(q.dtype)
