"""Merge of partial attention results in one pass with a running maximum."""

import numpy as np


def merge_attention_states(outs, lses):
    states = lses.astype(np.float32)
    top = np.zeros(states.shape[1:], np.float32)
    total = np.zeros(states.shape[1:], np.float32)
    acc = np.zeros(outs.shape[1:], np.float32)
    for out, lse in zip(outs, states):
        new_top = np.maximum(top, lse)
        safe = np.where(np.isneginf(new_top), 0, new_top)
        decay, share = np.exp(top - safe), np.exp(lse - safe)
        acc = acc * decay[..., None] + out.astype(np.float32) * share[..., None]
        total = total * decay + share
        top = new_top
    seen = total > 0
    out = acc / np.where(seen, total, 1)[..., None]
    return out.astype(outs.dtype), np.where(seen, top + np.log(np.where(seen, total, 1)), -np.inf)
