import torch
import torch.nn.functional as F


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None, window=None):
    batch, heads, _ = q.shape
    block_size, kv = k_cache.shape[1:3]
    pos = torch.arange(block_table.shape[1] * block_size)
    inside = pos < context_lens[:, None]
    blocks = torch.where(inside, block_table[:, pos // block_size], 0)
    k, v = (torch.where(inside[..., None, None], c[blocks, pos % block_size], 0).transpose(1, 2) for c in (k_cache, v_cache))
    seen = inside if window is None or window[0] is None else inside & (pos >= context_lens[:, None] - 1 - window[0])
    empty = context_lens == 0
    mask = (seen | empty[:, None])[:, None, None]
    out = F.scaled_dot_product_attention(
        q[:, :, None], k.repeat_interleave(heads // kv, 1), v.repeat_interleave(heads // kv, 1), attn_mask=mask, scale=scale
    )[:, :, 0]
    return out.masked_fill(empty[:, None, None], 0.0)
