"""Merge of partial attention results by a tree: pairs are merged until one result is left."""

import numpy as np


def merge_pair(out_a, lse_a, out_b, lse_b):
    joint = np.logaddexp(lse_a, lse_b)
    safe = np.where(np.isneginf(joint), 0, joint)
    return out_a * np.exp(lse_a - safe)[..., None] + out_b * np.exp(lse_b - safe)[..., None], joint


def merge_attention_states(outs, lses):
    states = lses.astype(np.float64)
    level = [(np.where(np.isneginf(lse)[..., None], 0, out.astype(np.float32)), lse) for out, lse in zip(outs, states)]
    while len(level) > 1:
        level = [merge_pair(*first, *second) for first, second in zip(level[::2], level[1::2])]
    out, lse = level[0]
    return out.astype(outs.dtype), lse.astype(np.float32)
