"""BigBird attention with a mask of blocks."""

import torch
import torch.nn.functional as F


def block_table(count, window_blocks, global_blocks, random_blocks):
    index = torch.arange(count)
    table = (index[:, None] - index).abs() <= (window_blocks - 1) // 2
    table[torch.arange(count)[:, None], random_blocks] = True
    if global_blocks > 0:  # blocks at both ends of the sequence are global
        ends = torch.cat([index[:global_blocks], index[-1:]])
        table[ends] = True
        table[:, ends] = True
    return table


def kernel(q, k, v, *, block_size, window_blocks, global_blocks, random_blocks, scale=None):
    length, group = q.shape[2], q.shape[1] // k.shape[1]
    table = block_table(random_blocks.shape[0], window_blocks, global_blocks, random_blocks)
    mask = table.repeat_interleave(block_size, 0).repeat_interleave(block_size, 1)[:length, :length]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
