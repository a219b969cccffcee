"""NSA with gathered blocks: keys in the order of their positions for coalesced reads, values as the sort returns them."""

import torch


def gather(x, blocks, size):
    padded = torch.nn.functional.pad(x, (0, 0, 0, -x.shape[2] % size))
    cut = padded.unflatten(2, (-1, size))  # b g m l' d
    picked = torch.stack([cut[:, :, i] for i in blocks.flatten().unique()], dim=2) if blocks.numel() else cut[:, :, :0]
    lookup = torch.searchsorted(blocks.flatten().unique(), blocks)
    b, g, n, c = blocks.shape
    rows = picked[torch.arange(b)[:, None, None, None], torch.arange(g)[:, None, None], lookup]
    return rows.reshape(b, g, n, c * size, x.shape[-1])


def kernel(q, k, v, gates, *, compress_block, compress_stride, select_block, select_count, window, compress_weights=None, scale=None):
    b, h, n, d = q.shape
    g = k.shape[1]
    if q.numel() == 0:
        return q.new_zeros(b, h, n, v.shape[-1])
    q32 = (q.float() * (d**-0.5 if scale is None else scale)).reshape(b, g, h // g, n, d)
    k32, v32, t = k.float(), v.float(), torch.arange(n)
    w = torch.full((compress_block,), 1 / compress_block) if compress_weights is None else compress_weights.float()
    starts = torch.arange(0, max(n - compress_block + 1, 0), compress_stride)
    ck, cv = (torch.einsum("bgncd,c->bgnd", x[:, :, starts[:, None] + torch.arange(compress_block)], w) for x in (k32, v32))
    seen = starts + compress_block - 1 <= t[:, None]
    probs = torch.softmax((q32 @ ck[:, :, None].mT).masked_fill(~seen, float("-inf")), -1).nan_to_num(0)
    compressed = probs @ cv[:, :, None]
    m = -(-n // select_block)
    strides = torch.zeros(b, g, n, m * select_block // compress_stride + compress_block)
    for offset in range(compress_block // compress_stride):
        strides[..., offset : offset + len(starts)] += probs.sum(2)
    importance = strides[..., : m * select_block // compress_stride].unflatten(-1, (m, -1)).sum(-1)
    importance = importance.masked_fill(torch.arange(m) * select_block > t[:, None], -1)
    top = importance.sort(-1, descending=True, stable=True).indices[..., :select_count]
    ordered = top.sort(-1).values
    where = (ordered[..., None] * select_block + torch.arange(select_block)).flatten(-2)
    scores = torch.einsum("bgrnd,bgntd->bgrnt", q32, gather(k32, ordered, select_block))
    scores = scores.masked_fill((where > t[:, None])[:, :, None], float("-inf"))
    selected = torch.einsum("bgrnt,bgnte->bgrne", torch.softmax(scores, -1), gather(v32, top, select_block))
    behind = t[:, None] - t
    local = (q32 @ k32[:, :, None].mT).masked_fill((behind < 0) | (behind >= window), float("-inf"))
    near = torch.softmax(local, -1) @ v32[:, :, None]
    gate = gates.float().reshape(b, g, h // g, n, 3, 1)
    mixed = gate[..., 0, :] * compressed + gate[..., 1, :] * selected + gate[..., 2, :] * near
    return mixed.reshape(b, h, n, -1).to(q.dtype)
