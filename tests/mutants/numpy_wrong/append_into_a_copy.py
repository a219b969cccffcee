import numpy as np


def kernel(key, value, key_cache, value_cache, slot_mapping):
    keep = slot_mapping >= 0
    out = []
    for rows, cache in ((key, key_cache), (value, value_cache)):
        new = np.copy(cache, order="K")
        flat = new.reshape(-1, *cache.shape[2:])
        flat[slot_mapping[keep]] = rows[keep]
        out.append(new)
    return tuple(out)
