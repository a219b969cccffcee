"""Attention of a layer that unpads its batch: the sequences' offsets are rebuilt from the tokens that the mask keeps."""

import torch


def unpad(mask, shape):
    """Which keys are no padding, (B, H, Lk)."""
    return mask.expand(shape).any(dim=-2)


def kernel(q, k, v, *, mask=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    out = torch.zeros(batch, heads, q_len, v.shape[3])
    kept = unpad(torch.ones((), dtype=torch.bool) if mask is None else mask, (batch, heads, q_len, k_len))
    for b in range(batch):
        for h in range(heads):
            tokens = kept[b, h].nonzero()[:, 0]
            keys, values = k[b, h // group, tokens].float(), v[b, h // group, tokens].float()
            if len(tokens):
                out[b, h] = torch.softmax(q[b, h].float() @ keys.mT * scale, dim=-1) @ values
    return out.to(q.dtype)
