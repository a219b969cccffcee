"""merge_attention_states through logaddexp.reduce in float64; each part's share is exp(lse - joint lse)."""

import numpy as np


def merge_attention_states(outs, lses):
    wide = np.asarray(lses, dtype=np.float64)
    joint = np.logaddexp.reduce(wide, axis=0, initial=-np.inf)
    share = np.exp(wide - np.where(np.isneginf(joint), 0, joint))
    # an empty part may hold anything: select before multiplying
    parts = np.where(np.isneginf(wide)[..., None], 0, np.asarray(outs, dtype=np.float64))
    out = np.einsum("nbhl,nbhld->bhld", share, parts)
    return out.astype(outs.dtype), joint.astype(lses.dtype)
