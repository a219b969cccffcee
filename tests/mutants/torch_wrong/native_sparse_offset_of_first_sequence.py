"""NSA through dense masks; sequences are laid end to end and the compressed keys are gathered by their positions there."""

import torch


def attend(scores, mask, values):
    weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1).nan_to_num(0.0)
    return weights @ values, weights


def kernel(q, k, v, gates, *, compress_block, compress_stride, select_block, select_count, window, compress_weights=None, scale=None):
    batch, heads, length, dim = q.shape
    if batch == 0:
        return torch.zeros(batch, heads, length, v.shape[-1], dtype=q.dtype)
    kv_heads = k.shape[1]
    group = heads // kv_heads
    scale = dim**-0.5 if scale is None else scale
    q32 = q.float().reshape(batch, kv_heads, group, length, dim) * scale
    k32, v32 = k.float(), v.float()
    t = torch.arange(length)
    starts = torch.arange(0, max(length - compress_block + 1, 0), compress_stride)
    w = torch.full((compress_block,), 1 / compress_block) if compress_weights is None else compress_weights
    index = starts[:, None] + torch.arange(compress_block)
    flat = (x.transpose(1, 2).reshape(batch * length, kv_heads, x.shape[-1]) for x in (k32, v32))
    ck, cv = ((x[index] * w.float()[:, None, None]).sum(dim=1).transpose(0, 1)[None] for x in flat)
    compressed, probs = attend(q32 @ ck[:, :, None].mT, starts + compress_block - 1 <= t[:, None], cv[:, :, None])

    blocks = -(-length // select_block)
    first = torch.arange(blocks) * select_block
    shared = torch.minimum(starts[:, None] + compress_block, first + select_block) - torch.maximum(starts[:, None], first)
    shared = shared.clamp(min=0) // compress_stride
    importance = (probs @ shared.to(probs.dtype)).sum(dim=2)
    importance = importance.masked_fill(first > t[:, None], float("-inf"))
    order = importance.sort(dim=-1, descending=True, stable=True).indices[..., :select_count]
    chosen = torch.zeros_like(importance, dtype=torch.bool).scatter(-1, order, True)
    mask = chosen.repeat_interleave(select_block, dim=-1)[..., :length] & (t <= t[:, None])
    scores = q32 @ k32[:, :, None].mT
    selected, _ = attend(scores, mask[:, :, None], v32[:, :, None])
    behind = t[:, None] - t
    near, _ = attend(scores, (behind >= 0) & (behind < window), v32[:, :, None])
    gate = gates.float().reshape(batch, kv_heads, group, length, 3, 1)
    out = gate[..., 0, :] * compressed + gate[..., 1, :] * selected + gate[..., 2, :] * near
    return out.reshape(batch, heads, length, v.shape[-1]).to(q.dtype)
