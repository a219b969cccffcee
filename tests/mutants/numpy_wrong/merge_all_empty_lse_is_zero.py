"""Merge of partial attention results; parts without keys are recognised and left out."""

import numpy as np


def merge_attention_states(outs, lses):
    states = lses.astype(np.float64)
    present = states > -np.inf
    peak = np.max(np.where(present, states, -np.inf), axis=0)
    peak = np.where(present.any(axis=0), peak, 0.0)
    shares = np.where(present, np.exp(states - peak), 0.0)
    total = np.where(present.any(axis=0), shares.sum(axis=0), 1.0)
    acc = np.zeros(outs.shape[1:], np.float64)
    for part, share in zip(outs, shares):
        acc += share[..., None] * part
    return (acc / total[..., None]).astype(outs.dtype), (peak + np.log(total)).astype(np.float32)
