import torch


def kernel(key, value, key_cache, value_cache, slot_mapping):
    size = key_cache.shape[1]
    kept = slot_mapping >= 0
    slots = slot_mapping[kept]
    block, offset = (slots // size).to(torch.uint8).long(), slots % size
    new_keys, new_values = key_cache.clone(), value_cache.clone()
    new_keys[block, offset], new_values[block, offset] = key[kept], value[kept]
    return new_keys, new_values
