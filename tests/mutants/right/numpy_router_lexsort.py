"""Router gate."""

import numpy as np


def kernel(logits, k, *, renormalize=True, scoring="softmax", correction=None, groups=1, top_groups=1):
    x = logits.astype(np.float32)
    if scoring == "sigmoid":
        scores = np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x)))
    else:
        scores = np.exp(x - x.max(-1, keepdims=True))
        scores = scores / scores.sum(-1, keepdims=True)
    choice = scores if correction is None else scores + correction.astype(np.float32)
    if top_groups < groups:
        grouped = choice.reshape(len(choice), groups, choice.shape[1] // groups)
        best = np.sort(grouped, axis=-1)[..., -2:].sum(-1)
        keep = np.argsort(-best, axis=-1, kind="stable")[:, :top_groups]
        mask = np.zeros(best.shape, bool)
        np.put_along_axis(mask, keep, True, axis=-1)
        choice = np.where(mask[..., None], grouped, -np.inf).reshape(choice.shape)
    idx = np.lexsort((np.broadcast_to(np.arange(choice.shape[1]), choice.shape), -choice), axis=-1)[:, :k].astype(np.int32)
    w = np.take_along_axis(scores, idx, axis=-1)
    if renormalize:
        w = w / w.sum(-1, keepdims=True)
    return idx, w.astype(logits.dtype)
