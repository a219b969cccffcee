import torch


def kernel(query, key_cache, value_cache, block_tables, seq_lens, *, scale=None):
    block_size, kv_heads, width = key_cache.shape[1:]
    scale = width**-0.5 if scale is None else scale
    position = torch.arange(block_tables.shape[1] * block_size)
    # where each position lies, computed once for keys and values
    slots = (block_tables[:, position // block_size] * block_size + position % block_size).to(torch.int16)
    used = position < seq_lens[:, None]
    slots = torch.where(used, slots.long() % (key_cache.shape[0] * block_size), 0)
    clear = ~used[:, :, None, None]
    k = key_cache.flatten(0, 1)[slots].masked_fill(clear, 0).repeat_interleave(query.shape[1] // kv_heads, dim=2)
    v = value_cache.flatten(0, 1)[slots].masked_fill(clear, 0).repeat_interleave(query.shape[1] // kv_heads, dim=2)
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = torch.einsum("bhd,bphd->bhp", query.to(wide), k.to(wide)) * scale
    weights = scores.masked_fill(~used[:, None], float("-inf")).softmax(dim=-1)
    weights = torch.where(seq_lens[:, None, None] > 0, weights, 0.0)
    return torch.einsum("bhp,bphe->bhe", weights, v.to(wide)).to(query.dtype)
