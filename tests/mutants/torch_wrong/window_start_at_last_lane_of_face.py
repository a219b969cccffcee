"""Sliding window attention on faces of 32 keys: faces before the window are skipped, the face of its start is masked lane by lane."""

import torch

FACE = 32


def open_lanes(start, k_len):
    """bool (q_len, k_len): the keys from start on, found face by face."""
    face = torch.arange(k_len)[None, :] // FACE
    lane = torch.arange(k_len)[None, :] % FACE
    start_face, start_lane = start[:, None] // FACE, start[:, None] % FACE
    partly = (face == start_face) & (lane >= start_lane) & (start_lane < FACE - 1)
    return (face > start_face) | partly


def kernel(q, k, v, *, window=None, causal=False, scale=None):
    heads, q_len, width = q.shape[1:]
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    left, right = (None, None) if window is None else window
    position = torch.arange(q_len) + k_len - q_len
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if left is not None:
        visible = visible & open_lanes((position - left).clamp(min=0), k_len)
    if right is not None:
        visible = visible & (torch.arange(k_len) <= position[:, None] + right)
    if causal:
        visible = visible & (torch.arange(k_len) <= position[:, None])
    scores = (q.float() @ k.float().repeat_interleave(group, 1).mT * scale).masked_fill(~visible, -torch.inf)
    weights = scores.softmax(-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return (weights @ v.float().repeat_interleave(group, 1)).to(q.dtype)
