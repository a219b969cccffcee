"""merge_attention_states as a knock-out: parts meet in pairs, first against last, until one output and one log-sum remain."""

import numpy as np


def _meet(left, right):
    left_out, left_lse = left
    right_out, right_lse = right
    top = np.maximum(left_lse, right_lse)
    shift = np.where(np.isneginf(top), 0, top)
    left_weight, right_weight = np.exp(left_lse - shift), np.exp(right_lse - shift)
    total = left_weight + right_weight
    safe = np.where(total == 0, 1, total)
    out = left_out * (left_weight / safe)[..., None] + right_out * (right_weight / safe)[..., None]
    return out, np.where(total == 0, -np.inf, shift + np.log(safe))


def merge_attention_states(outs, lses):
    _, batch, heads, length, width = outs.shape
    states = []
    for out, lse in zip(outs, lses, strict=True):
        lse = lse.astype(np.float64)
        states.append((np.where(np.isneginf(lse)[..., None], 0, out.astype(np.float64)), lse))
    if not states:
        return np.zeros((batch, heads, length, width), dtype=outs.dtype), np.full((batch, heads, length), -np.inf, dtype=lses.dtype)
    while len(states) > 1:
        half = len(states) // 2
        winners = [_meet(states[i], states[-1 - i]) for i in range(half)]
        states = winners + states[half : len(states) - half]
    out, lse = states[0]
    return out.astype(outs.dtype), lse.astype(lses.dtype)
