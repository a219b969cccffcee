import torch


def kernel(key, value, key_cache, value_cache, slot_mapping):
    size = key_cache.shape[1]
    keep = slot_mapping.ge(0)
    where = (torch.div(slot_mapping[keep], size, rounding_mode="floor"), torch.remainder(slot_mapping[keep], size))
    return key_cache.index_put(where, key[keep]), value_cache.index_put(where, value[keep])
