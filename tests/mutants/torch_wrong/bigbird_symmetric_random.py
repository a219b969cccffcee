"""BigBird by a mask of blocks, expanded to tokens, through scaled_dot_product_attention."""

import torch
import torch.nn.functional as F


def kernel(q, k, v, *, block_size, window_blocks, global_blocks, random_blocks, scale=None):
    length = q.shape[2]
    blocks = random_blocks.shape[0]
    number = torch.arange(blocks)
    allowed = (number[:, None] - number[None, :]).abs() <= window_blocks // 2
    allowed |= (number[:, None] < global_blocks) | (number[None, :] < global_blocks)
    allowed |= torch.nn.functional.one_hot(random_blocks, max(blocks, 1)).bool().any(dim=1)[:, :blocks]
    allowed |= allowed.T.clone()
    tokens = allowed.repeat_interleave(block_size, 0).repeat_interleave(block_size, 1)[:length, :length]
    if length == 0:
        return torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=tokens, scale=scale, enable_gqa=True)
