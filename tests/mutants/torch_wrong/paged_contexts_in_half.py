import torch


def kernel(query, key_cache, value_cache, block_tables, seq_lens, *, scale=None, window=None):
    block_size, kv_heads, width = key_cache.shape[1:]
    scale = width**-0.5 if scale is None else scale
    wide = torch.promote_types(query.dtype, torch.float32)
    # the mask is computed in the dtype of the queries, as is what it is added to
    position = torch.arange(block_tables.shape[1] * block_size).to(query.dtype)
    length = seq_lens[:, None].to(query.dtype)
    used = torch.arange(len(position)) < seq_lens[:, None]
    seen = position < length
    if window is not None and window[0] is not None:
        seen &= position >= length - 1 - window[0]
    if window is not None and window[1] is not None:
        seen &= position <= length - 1 + window[1]
    blocks = block_tables.clamp(min=0)
    clear = ~used[:, :, None, None]
    k = key_cache[blocks].flatten(1, 2).masked_fill(clear, 0).repeat_interleave(query.shape[1] // kv_heads, dim=2)
    v = value_cache[blocks].flatten(1, 2).masked_fill(clear, 0).repeat_interleave(query.shape[1] // kv_heads, dim=2)
    scores = torch.einsum("bhd,bphd->bhp", query.to(wide), k.to(wide)) * scale
    weights = scores.masked_fill(~seen[:, None], float("-inf")).softmax(dim=-1)
    weights = torch.where(seen.any(-1)[:, None, None], weights, 0.0)
    return torch.einsum("bhp,bphe->bhe", weights, v.to(wide)).to(query.dtype)
