"""Decode kernel for pages of 16 tokens; values wider than 128 are loaded in two halves, each by its own page number."""

import math

import numpy as np

PAGE = 16
HALF = 128


def kernel(q, k, v, *, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    value_width = v.shape[3]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    top = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group * q_len, value_width), np.float32)
    page_of_upper_half = 0
    for page in range(-(-k_len // PAGE)):
        tokens = slice(page * PAGE, min((page + 1) * PAGE, k_len))
        count = tokens.stop - tokens.start
        scores = queries @ k[:, :, tokens].astype(np.float32).swapaxes(2, 3)
        values = np.zeros((batch, kv_heads, count, value_width), np.float32)
        values[..., :HALF] = v[:, :, tokens, :HALF]
        upper = slice(page_of_upper_half * PAGE, page_of_upper_half * PAGE + count)
        values[..., HALF:] = v[:, :, upper, HALF:]
        # the number for the next page is fetched while this one is used
        page_of_upper_half = page
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = np.exp(scores - new_top), np.exp(top - new_top)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values
        top = new_top
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, value_width).astype(q.dtype)
