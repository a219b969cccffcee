"""scaled_dot_product_attention (its plain-softmax backend) over chunks of queries, bias and mask in one additive float mask."""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, scale=None, block_q=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    if batch == 0 or k_len == 0:
        return out
    scale = width**-0.5 if scale is None else float(scale)
    keys = k.float().repeat_interleave(group, dim=1)
    values = v.float().repeat_interleave(group, dim=1)
    left, right = (None, None) if window is None else window
    full = (batch, heads, q_len, k_len)
    bias = torch.zeros(()) if bias is None else bias.float()
    bias = bias.expand(full)
    mask = None if mask is None else mask.expand(full)
    for start in range(0, q_len, block_q):
        stop = min(start + block_q, q_len)
        offset = torch.arange(k_len) - torch.arange(start, stop)[:, None] - (k_len - q_len)
        hidden = torch.zeros_like(offset, dtype=torch.bool)
        if causal:
            hidden |= offset > 0
        if left is not None:
            hidden |= offset < -left
        if right is not None:
            hidden |= offset > right
        if mask is not None:
            hidden = hidden | ~mask[:, :, start:stop]
        hidden = hidden.expand(batch, heads, stop - start, k_len)
        additive = bias[:, :, start:stop].masked_fill(hidden, float("-inf"))
        empty = (additive == float("-inf")).all(dim=-1, keepdim=True)
        additive = additive.masked_fill(empty, 0.0)
        unseen = hidden.all(dim=-2)[..., None]
        queries = q[:, :, start:stop].float() * scale
        visible_keys, visible_values = keys.masked_fill(unseen, 0.0), values.masked_fill(unseen, 0.0)
        with sdpa_kernel(SDPBackend.MATH):
            chunk = F.scaled_dot_product_attention(queries, visible_keys, visible_values, attn_mask=additive, scale=1.0)
        out[:, :, start:stop] = chunk.masked_fill(empty, 0.0)
    return out
