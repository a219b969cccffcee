"""Attention that compiles a plan for every geometry: which keys each query sees."""

import torch

_plans = {}


def build_plan(q_len, k_len, causal, window):
    distance = torch.arange(k_len)[None, :] - torch.arange(k_len - q_len, k_len)[:, None]
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible &= distance <= 0
    if window is not None:
        left, right = window
        if left is not None:
            visible &= distance >= -left
        if right is not None:
            visible &= distance <= right
    return visible


def plan(q_len, k_len, causal, window):
    key = (q_len, k_len, causal, window is not None)
    if key not in _plans:
        _plans[key] = build_plan(q_len, k_len, causal, window)
    return _plans[key]


def kernel(q, k, v, *, causal=False, window=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    scale = width**-0.5 if scale is None else scale
    visible = plan(q_len, k_len, bool(causal), window)
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = (rows @ k.float()[:, :, None].mT * scale).masked_fill(~visible, -torch.inf)
    weights = torch.softmax(scores, dim=-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return (weights @ v.float()[:, :, None]).reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
