"""Recursion that halves queries and keys in turn: four quadrants, keys merged pairwise, queries concatenated."""

import torch

LEAF = 32


def _attend(queries, keys, values, allowed):
    if queries.shape[2] > LEAF:
        middle = queries.shape[2] // 2
        upper = _attend(queries[:, :, :middle], keys, values, allowed[:, :, :middle])
        lower = _attend(queries[:, :, middle:], keys, values, allowed[:, :, middle:])
        return tuple(torch.cat(pair, dim=2) for pair in zip(upper, lower, strict=True))
    if keys.shape[2] > LEAF:
        middle = keys.shape[2] // 2 + 1
        near = _attend(queries, keys[:, :, :middle], values[:, :, :middle], allowed[..., :middle])
        far = _attend(queries, keys[:, :, middle:], values[:, :, middle:], allowed[..., middle:])
        highest = torch.maximum(near[0], far[0])
        shift = highest.masked_fill(highest.isneginf(), 0.0)
        near_factor, far_factor = (near[0] - shift).exp(), (far[0] - shift).exp()
        return highest, near[1] * near_factor + far[1] * far_factor, near[2] * near_factor + far[2] * far_factor
    logits = torch.where(allowed, queries @ keys.mT, -torch.inf)
    highest = logits.amax(dim=-1, keepdim=True)
    weights = (logits - highest.masked_fill(highest.isneginf(), 0.0)).exp()
    return highest, weights.sum(dim=-1, keepdim=True), weights @ values


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    if k_len == 0:
        return torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    scale = width**-0.5 if scale is None else float(scale)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    if window is not None:
        left, right = window
        allowed = allowed if left is None else allowed.triu(k_len - q_len - left)
        allowed = allowed if right is None else allowed.tril(k_len - q_len + right)
    allowed = (allowed if mask is None else mask & allowed).expand(batch, heads, q_len, k_len)
    keys = torch.repeat_interleave(k.float(), group, dim=1)
    values = torch.repeat_interleave(v.float(), group, dim=1)
    _, total, weighted = _attend(q.float() * scale, keys, values, allowed)
    return (weighted / total.masked_fill(total == 0, 1.0)).to(q.dtype)
