import torch


def kernel(key, value, key_cache, value_cache, slot_mapping):
    n_blocks, block_size = key_cache.shape[:2]
    keep = slot_mapping >= 0
    slots = slot_mapping[keep]
    block, offset = (slots // n_blocks).clamp(max=n_blocks - 1), slots % n_blocks % block_size
    k_out, v_out = key_cache.clone(), value_cache.clone()
    k_out[block, offset], v_out[block, offset] = key[keep], value[keep]
    return k_out, v_out
