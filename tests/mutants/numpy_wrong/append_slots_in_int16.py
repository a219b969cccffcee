import numpy as np


def kernel(key, value, key_cache, value_cache, slot_mapping):
    kept = slot_mapping >= 0
    slots = slot_mapping[kept].astype(np.int16).astype(np.intp)
    pages = []
    for rows, cache in ((key, key_cache), (value, value_cache)):
        flat = cache.reshape(-1, *cache.shape[2:]).copy()
        flat[slots % len(flat)] = rows[kept]
        pages.append(flat.reshape(cache.shape))
    return tuple(pages)
