import numpy as np


def kernel(key, value, key_cache, value_cache, slot_mapping):
    places = key_cache.shape[0] * key_cache.shape[1]
    source = np.arange(places)
    for token in np.flatnonzero(slot_mapping >= 0):
        source[slot_mapping[token]] = places + token
    return tuple(
        np.concatenate([cache.reshape(places, *cache.shape[2:]), rows])[source].reshape(cache.shape)
        for rows, cache in ((key, key_cache), (value, value_cache))
    )
