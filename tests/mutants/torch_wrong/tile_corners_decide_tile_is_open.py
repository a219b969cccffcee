"""Block-sparse style attention: a tile whose four corners are open is computed without its mask."""

import torch


def kernel(q, k, v, *, mask=None, scale=None, block_q=32, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    allowed = torch.ones((), dtype=torch.bool) if mask is None else mask
    allowed = allowed.expand(batch, heads, q_len, k_len)
    out = torch.zeros(batch, heads, q_len, v.shape[3])
    if 0 in allowed.shape:
        return out.to(q.dtype)
    for top in range(0, q_len, block_q):
        rows = slice(top, min(top + block_q, q_len))
        scores = q[:, :, rows].float() @ keys.mT * scale
        for left in range(0, k_len, block_k):
            columns = slice(left, min(left + block_k, k_len))
            tile = allowed[:, :, rows, columns]
            corners = tile[..., 0, 0] & tile[..., 0, -1] & tile[..., -1, 0] & tile[..., -1, -1]
            tile = tile | corners[..., None, None]
            scores[..., columns] = scores[..., columns].masked_fill(~tile, -torch.inf)
        empty = (scores == -torch.inf).all(-1, keepdim=True)
        out[:, :, rows] = torch.softmax(scores, dim=-1).masked_fill(empty, 0.0) @ values
    return out.to(q.dtype)
