"""Merge of partial attention results: each part is weighed by its denominator."""

import numpy as np


def merge_attention_states(outs, lses):
    denominators = np.exp(lses.astype(np.float32))
    total = denominators.sum(axis=0)
    empty = total == 0
    numerator = (outs.astype(np.float32) * denominators[..., None]).sum(axis=0)
    out = numerator / np.where(empty, 1, total)[..., None]
    lse = np.where(empty, -np.inf, np.log(np.where(empty, 1, total)))
    return out.astype(outs.dtype), lse
