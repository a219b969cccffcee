"""BigBird attention block by block: sequences are padded to whole blocks, whose keys are gathered through a table."""

import torch
from torch.nn.functional import pad


def kernel(q, k, v, *, block_size, window_blocks, global_blocks, random_blocks, scale=None):
    batch, heads, length, width = q.shape
    group, count = heads // k.shape[1], random_blocks.shape[0]
    fill = (0, 0, 0, count * block_size - length)
    k, v = (pad(x.repeat_interleave(group, dim=1), fill).reshape(batch, heads, count, block_size, -1) for x in (k, v))
    q = pad(q, fill).reshape(batch, heads, count, block_size, width) * (width**-0.5 if scale is None else scale)
    rows = []
    for block in range(count):
        reach = window_blocks // 2
        chosen = set(range(max(block - reach, 0), min(block + reach + 1, count)))
        chosen |= set(range(min(global_blocks, count))) | set(random_blocks[block].tolist())
        if block < global_blocks:
            chosen = set(range(count))
        index = torch.tensor(sorted(chosen))
        keys, values = (x[:, :, index].flatten(2, 3) for x in (k, v))
        scores = q[:, :, block] @ keys.transpose(-1, -2)
        rows.append(torch.softmax(scores, dim=-1) @ values)
    out = torch.cat(rows, dim=2) if rows else q.flatten(2, 3).new_zeros(batch, heads, 0, v.shape[-1])
    return out[:, :, :length].contiguous()
