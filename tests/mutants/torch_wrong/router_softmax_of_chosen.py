"""Mixtral-style gate."""

import torch


def kernel(logits, k, *, renormalize=True, scoring="softmax", correction=None, groups=1, top_groups=1):
    x = logits.float()
    scores = torch.sigmoid(x) if scoring == "sigmoid" else x.softmax(-1)
    choice = scores if correction is None else scores + correction.to(scores.dtype)
    if top_groups < groups:
        grouped = choice.reshape(len(choice), groups, choice.shape[1] // groups)
        group_scores = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
        keep = torch.sort(group_scores, dim=-1, descending=True, stable=True).indices[:, :top_groups]
        mask = torch.zeros_like(group_scores, dtype=torch.bool).scatter(1, keep, True)
        choice = grouped.masked_fill(~mask[..., None], float("-inf")).flatten(1)
    idx = torch.sort(choice, dim=-1, descending=True, stable=True).indices[:, :k]
    w = (x if scoring == "softmax" else scores).gather(1, idx)
    if renormalize:
        w = w.softmax(-1) if scoring == "softmax" else w / w.sum(-1, keepdim=True)
    return idx, w.to(logits.dtype)
