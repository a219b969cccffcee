"""Attention over packed documents: a tile of which both ends lie in one document is computed without comparing the documents."""

import torch


def documents(mask):
    """The document of each token, named by its first key; None if the mask is no set of documents side by side."""
    ids = mask.int().argmax(dim=-1)
    return ids if torch.equal(mask, ids[..., :, None] == ids[..., None, :]) else None


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
    ids = documents(allowed) if q_len == k_len else None
    for top in range(0, q_len, block_q):
        rows = slice(top, min(top + block_q, q_len))
        scores = q[:, :, rows].float() @ keys.mT * scale
        for left in range(0, k_len, block_k):
            columns = slice(left, min(left + block_k, k_len))
            tile = allowed[:, :, rows, columns]
            if ids is not None:
                own, other = ids[:, :, rows], ids[:, :, columns]
                same = (own[..., 0] == other[..., 0]) & (own[..., -1] == other[..., -1])
                tile = tile | same[..., None, None]
            scores[..., columns] = scores[..., columns].masked_fill(~tile, -torch.inf)
        empty = (scores == -torch.inf).all(-1, keepdim=True)
        out[:, :, rows] = torch.softmax(scores, dim=-1).masked_fill(empty, 0.0) @ values
    return out.to(q.dtype)
