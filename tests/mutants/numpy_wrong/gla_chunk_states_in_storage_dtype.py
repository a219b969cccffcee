import numpy as np


def kernel(q, k, v, g, *, scale=None, initial_state=None):
    stored, chunk = q.dtype, 64
    q, k, v, g = (x.astype(np.float32) for x in (q, k, v, g))
    scale = np.float32(q.shape[3] ** -0.5 if scale is None else scale)
    state = np.zeros((*q.shape[:2], q.shape[3], v.shape[3]), stored) if initial_state is None else initial_state
    out = np.zeros((*q.shape[:3], v.shape[3]), stored)
    for start in range(0, q.shape[2], chunk):
        queries, keys, values, total = (x[:, :, start : start + chunk] for x in (q, k, v, g))
        total = np.cumsum(total, axis=2)
        held = state.astype(np.float32)
        for row in range(queries.shape[2]):
            left = np.exp(total[:, :, row, None] - total[:, :, : row + 1])
            weights = np.sum(queries[:, :, row, None] * left * keys[:, :, : row + 1], axis=-1)[:, :, None]
            decayed = (queries[:, :, row] * np.exp(total[:, :, row]))[:, :, None]
            out[:, :, start + row] = (scale * (weights @ values[:, :, : row + 1] + decayed @ held))[:, :, 0]
        last = total[:, :, -1:]
        added = np.swapaxes(keys * np.exp(last - total), -1, -2) @ values
        state = (np.swapaxes(np.exp(last), -1, -2) * held + added).astype(stored)
    return out, state
