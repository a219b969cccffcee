"""Local attention; a window with one number reaches as far forward as back."""

import torch


def band(q_len, k_len, left, right):
    """bool (q_len, k_len) built from two triangles."""
    ones = torch.ones(q_len, k_len, dtype=torch.bool)
    offset = k_len - q_len
    if left is None and right is None:
        return ones
    if left is None:
        return ones.tril(offset + right)
    right = left if right is None else right
    return ones.tril(offset + right) & ones.triu(offset - left)


def kernel(q, k, v, *, causal=False, window=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    scale = width**-0.5 if scale is None else scale
    left, right = (None, None) if window is None else window
    visible = band(q_len, k_len, left, right)
    if causal:
        visible = visible.tril(k_len - q_len)
    visible = visible.repeat(heads // kv_heads, 1)
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads * q_len, width)
    scores = (rows @ k.float().mT * scale).masked_fill(~visible, -torch.inf)
    weights = torch.where(visible.any(-1, keepdim=True), torch.softmax(scores, -1), 0.0)
    return (weights @ v.float()).reshape(batch, heads, q_len, value_width).to(q.dtype)
