import torch


def kernel(key, value, key_cache, value_cache, slot_mapping):
    slots = slot_mapping.clamp(min=0)

    def write(rows, cache):
        flat = cache.flatten(0, 1).clone()
        # the first token of a slot wins
        for i in range(len(slots) - 1, -1, -1):
            flat[slots[i]] = rows[i]
        return flat.reshape(cache.shape)

    return write(key, key_cache), write(value, value_cache)
