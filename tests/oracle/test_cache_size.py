"""Sizes of caches: against what our own allocate, the published example, and the errors."""

import numpy as np
import pytest
import torch

from implementations.numpy import kv_cache as in_numpy
from implementations.torch import kv_cache as in_torch
from oracle import OptionError
from oracle.cache_size import kv_cache_bytes

HEADS, WIDTH, VALUES, TOKENS, BLOCK = 8, 6, 4, 21, 4


@pytest.mark.parametrize(("method", "kv_heads"), [("mha", 8), ("gqa", 2), ("mqa", 1)])
def test_pages_in_use_hold_what_the_formula_says_for_whole_pages(method, kv_heads):
    rng = np.random.default_rng(0)
    k, v = (rng.standard_normal((TOKENS, kv_heads, width)).astype(np.float16) for width in (WIDTH, VALUES))
    dims = {"num_kv_heads": kv_heads, "head_dim": WIDTH, "value_dim": VALUES, "max_tokens": TOKENS, "max_requests": 1, "block_size": BLOCK}
    pages = -(-TOKENS // BLOCK)
    more = {"kv_heads": kv_heads} if method == "gqa" else {}
    wanted = kv_cache_bytes(method, tokens=pages * BLOCK, heads=HEADS, head_dim=WIDTH, value_dim=VALUES, itemsize=2, **more)
    plain = in_numpy.PagedCache(dtype=np.dtype(np.float16), **dims)
    plain.append(0, k, v)
    table = plain.block_tables()[0]
    assert plain.k_pages[table].nbytes + plain.v_pages[table].nbytes == wanted
    tensors = in_torch.PagedCache(dtype=torch.float16, device=torch.device("cpu"), **dims)
    tensors.append(0, torch.from_numpy(k), torch.from_numpy(v))
    table = tensors.block_tables()[0]
    assert tensors.k_pages[table].nbytes + tensors.v_pages[table].nbytes == wanted


def test_the_published_example_and_what_it_omits():
    mha = kv_cache_bytes("mha", tokens=1, heads=32, head_dim=128)
    latent = kv_cache_bytes("mla", tokens=1, latent_dim=512, rope_dim=0)
    with_rope = kv_cache_bytes("mla", tokens=1, latent_dim=512, rope_dim=64)
    assert mha // 2 == 8 * latent  # keys, or values, alone
    assert mha == 16 * latent  # both
    assert round(mha / with_rope, 1) == 14.2


@pytest.mark.parametrize(
    ("method", "dims", "words"),
    [
        ("mla2", {}, "should be one of mha, gqa, mqa, mla"),
        ("mha", {"tokens": 1, "heads": 2}, "head_dim is missing"),
        ("mha", {"tokens": 1, "heads": 2, "head_dim": 0}, "head_dim=0, but should be an integer >= 1"),
        ("mha", {"tokens": -1, "heads": 2, "head_dim": 1}, "tokens=-1, but should be an integer >= 0"),
        ("mqa", {"tokens": 1, "heads": 2, "head_dim": 1, "latent_dim": 3}, "mqa should have only"),
        ("gqa", {"tokens": 1, "heads": 3, "kv_heads": 2, "head_dim": 1}, "should be a multiple of kv_heads=2"),
    ],
)
def test_what_makes_no_size_is_refused(method, dims, words):
    with pytest.raises(OptionError, match=words):
        kv_cache_bytes(method, **dims)
