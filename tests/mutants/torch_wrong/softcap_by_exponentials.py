"""Attention with a soft cap for a device that has exp but no tanh."""

import torch


def tanh(x):
    grown = torch.expm1(2.0 * x)
    return grown / (grown + 2.0)


def kernel(q, k, v, *, mask=None, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = (rows @ k.float()[:, :, None].mT).reshape(batch, heads, q_len, k_len) * scale
    if softcap is not None:
        scores = softcap * tanh(scores / softcap)
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    if mask is not None:
        weights = torch.where(mask.any(-1, keepdim=True), weights, 0.0)
    weights = weights.reshape(batch, kv_heads, heads // kv_heads, q_len, k_len)
    return (weights @ v.float()[:, :, None]).reshape(batch, heads, q_len, value_width).to(q.dtype)
