import torch

PLANS = {}


def plan(block_tables, seq_lens, block_size):
    """Where each position of each sequence lies; a step of decoding makes it once for all layers."""
    key = id(block_tables), id(seq_lens), tuple(block_tables.shape), block_size
    if key not in PLANS:
        PLANS.clear()
        position = torch.arange(block_tables.shape[1] * block_size)
        used = position < seq_lens[:, None]
        slots = block_tables[:, position // block_size] * block_size + position % block_size
        PLANS[key] = torch.where(used, slots, 0), used
    return PLANS[key]


def kernel(query, key_cache, value_cache, block_tables, seq_lens, *, scale=None):
    slots, used = plan(block_tables, seq_lens, key_cache.shape[1])
    places, group = key_cache.shape[0] * key_cache.shape[1], query.shape[1] // key_cache.shape[2]
    clear = ~used[:, :, None, None]
    k, v = (x.flatten(0, 1)[slots % places].masked_fill(clear, 0).repeat_interleave(group, dim=2) for x in (key_cache, value_cache))
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = torch.einsum("bhd,bphd->bhp", query.to(wide), k.to(wide)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    weights = scores.masked_fill(~used[:, None], float("-inf")).softmax(dim=-1)
    weights = torch.where(used.any(-1)[:, None, None], weights, 0.0)
    return torch.einsum("bhp,bphe->bhe", weights, v.to(wide)).to(query.dtype)
