"""Merge of partial attention results, one part after another, as in ring attention."""

import numpy as np


def merge_two(out, lse, other_out, other_lse, reference):
    joint = np.logaddexp(reference, other_lse)
    safe = np.where(np.isneginf(joint), 0, joint)
    out = out * np.exp(reference - safe)[..., None] + other_out * np.exp(other_lse - safe)[..., None]
    return out, np.logaddexp(lse, other_lse)


def merge_attention_states(outs, lses):
    states = lses.astype(np.float64)
    out = np.where(np.isneginf(states[0])[..., None], 0, outs[0].astype(np.float32))
    lse = states[0]
    for part in range(1, len(outs)):
        out, lse = merge_two(out, lse, outs[part].astype(np.float32), states[part], states[0])
    return out.astype(outs.dtype), lse.astype(np.float32)
