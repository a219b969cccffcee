"""All key tiles are computed at once along an axis of their own, then folded in half, level by level, until one is left."""

import torch


def _fold(highest, total, weighted):
    """Merge tile i with tile i + n/2; the tile axis has an even length."""
    half = highest.shape[0] // 2
    joint = torch.maximum(highest[:half], highest[half:])
    shift = torch.where(joint.isneginf(), 0.0, joint)
    low, high = torch.exp(highest[:half] - shift), torch.exp(highest[half:] - shift)
    return joint, low * total[:half] + high * total[half:], low * weighted[:half] + high * weighted[half:]


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None, block_k=16):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, v.shape[3])
    scale = width**-0.5 if scale is None else float(scale)
    tiles = 1
    while tiles * block_k < k_len:
        tiles *= 2
    padding = tiles * block_k - k_len
    logits = (q.float() * scale) @ k.float().repeat_interleave(group, dim=1).mT
    if bias is not None:
        logits = logits + bias.float()
    if causal:
        logits = logits.masked_fill(torch.ones(q_len, k_len, dtype=torch.bool).triu(k_len - q_len + 1), -torch.inf)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    logits = torch.nn.functional.pad(logits, (0, padding), value=-torch.inf)
    values = torch.nn.functional.pad(v.float().repeat_interleave(group, dim=1), (0, 0, 0, padding))
    logits = logits.unflatten(-1, (tiles, block_k)).movedim(-2, 0)  # (tiles, B, Hq, Lq, block_k)
    values = values.unflatten(2, (tiles, block_k)).movedim(2, 0)  # (tiles, B, Hq, block_k, Dv)
    highest = logits.amax(dim=-1, keepdim=True)
    weights = torch.exp(logits - torch.where(highest.isneginf(), 0.0, highest))
    state = (highest, weights.sum(dim=-1, keepdim=True), weights @ values)
    while state[0].shape[0] > 1:
        state = _fold(*state)
    _, total, weighted = (part[0] for part in state)
    return (weighted / torch.where(total == 0, 1.0, total)).to(q.dtype)
