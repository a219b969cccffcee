"""Merge of partial attention results that saves memory by accumulating into the first part."""

import numpy as np


def merge_attention_states(outs, lses):
    peak = lses.max(axis=0)
    peak = np.where(np.isneginf(peak), 0, peak)
    shares = np.exp(lses.astype(np.float32) - peak)
    total = shares.sum(axis=0)
    weights = shares / np.where(total > 0, total, 1)
    acc = outs[0] if outs.flags.writeable and outs.dtype == np.float32 else outs[0].astype(np.float32)
    acc *= weights[0, ..., None]
    for part in range(1, len(outs)):
        acc += outs[part].astype(np.float32) * weights[part, ..., None]
    lse = np.where(total > 0, peak + np.log(np.where(total > 0, total, 1)), -np.inf)
    return np.array(acc, dtype=outs.dtype), lse.astype(np.float32)
