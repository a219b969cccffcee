"""Split i owns the keys i, i + n, ...: a padded reshape puts the splits on an axis, and one softmax over their lse merges them."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, softcap=None, scale=None, num_splits=4):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = k.shape[1], k.shape[2], v.shape[3]
    group = heads // kv_heads
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, value_width)
    scale = width**-0.5 if scale is None else float(scale)
    num_splits = min(num_splits, k_len)
    depth = -(-k_len // num_splits)
    extra = depth * num_splits - k_len
    keys = torch.cat([k.float(), torch.zeros(batch, kv_heads, extra, width)], dim=2)
    values = torch.cat([v.float(), torch.zeros(batch, kv_heads, extra, value_width)], dim=2)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    allowed = (allowed if mask is None else allowed & mask).expand(batch, heads, q_len, k_len)
    allowed = torch.cat([allowed, torch.zeros(batch, heads, q_len, extra, dtype=torch.bool)], dim=-1)

    # key position = step * num_splits + split
    keys = keys.view(batch, kv_heads, depth, num_splits, width).repeat_interleave(group, dim=1)
    values = values.view(batch, kv_heads, depth, num_splits, value_width).repeat_interleave(group, dim=1)
    allowed = allowed.view(batch, heads, q_len, depth, num_splits)
    logits = torch.einsum("bhqd,bhtsd->bhqts", q.float(), keys) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = torch.where(allowed, logits, -torch.inf)
    highest = logits.amax(dim=3, keepdim=True)
    weights = torch.exp(logits - highest.masked_fill(highest.isneginf(), 0.0))
    total = weights.sum(dim=3)
    partial = torch.einsum("bhqts,bhtse->bhqse", weights, values)
    partial = partial / total.clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    lse = highest.squeeze(3).double() + total.double().log()
    lse = lse.masked_fill(total == 0, -torch.inf)
    share = torch.softmax(lse, dim=-1).nan_to_num(0.0).float()
    return torch.einsum("bhqs,bhqse->bhqe", share, partial).to(q.dtype)
