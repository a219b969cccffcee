"""The built-in implementations of serving refuse integers that fit no cache and no sequence, with a message that names them."""

import numpy as np
import pytest
import torch

import implementations.numpy.paged as numpy_paged
import implementations.numpy.rotary as numpy_rotary
import implementations.numpy.varlen as numpy_varlen
import implementations.torch.paged as torch_paged
import implementations.torch.rotary as torch_rotary
import implementations.torch.varlen as torch_varlen
from oracle import METHODS


def taking_arrays(module, names):
    return [pytest.param(getattr(module, name), np.asarray, id=f"numpy.{name}") for name in names]


def taking_tensors(module, names):
    return [pytest.param(getattr(module, name), torch.as_tensor, id=f"torch.{name}") for name in names]


PAGED = taking_arrays(numpy_paged, ["paged_gathered", "paged_blocks"]) + taking_tensors(torch_paged, ["paged_gathered", "paged_split"])
APPEND = taking_arrays(numpy_paged, ["append_by_slots", "append_by_blocks"])
APPEND += taking_tensors(torch_paged, ["append_by_index_copy", "append_by_scatter"])
VARLEN = taking_arrays(numpy_varlen, ["varlen_chunks", "varlen_padded"])
VARLEN += taking_tensors(torch_varlen, ["varlen_sequences", "varlen_packed"])
ROTARY = taking_arrays(numpy_rotary, ["rotary_complex", "rotary_tables"]) + taking_tensors(torch_rotary, ["rotary_half", "rotary_complex"])


def paged(make, table, contexts):
    pages = make(np.ones((4, 2, 1, 3), np.float32))
    return make(np.ones((2, 2, 3), np.float32)), pages, pages, make(np.array(table)), make(np.array(contexts))


@pytest.mark.parametrize(("kernel", "make"), PAGED)
@pytest.mark.parametrize(
    ("table", "contexts", "words"),
    [
        ([[0, 4], [2, -1]], [4, 1], r"block_table\[0, 1\]=4, but should be at least 0 and below 4"),
        ([[0, 3], [-1, -1]], [4, 1], r"block_table\[1, 0\]=-1"),
        ([[0, 3], [2, -1]], [5, 1], r"context_lens\[0\]=5, but should be from 0 to 2 blocks of 2"),
        ([[0, 3], [2, -1]], [4, -1], r"context_lens\[1\]=-1"),
    ],
)
def test_a_cache_that_does_not_fit(kernel, make, table, contexts, words):
    kernel(*paged(make, [[0, 3], [2, -1]], [4, 1]))
    with pytest.raises(ValueError, match=words):
        kernel(*paged(make, table, contexts))


@pytest.mark.parametrize(("kernel", "make"), APPEND)
@pytest.mark.parametrize(
    ("slots", "words"), [([0, 8], r"slots\[1\]=8, but should be"), ([3, 3], "write 1 places twice"), ([-2, 0], r"slots\[0\]=-2")]
)
def test_slots_that_do_not_fit(kernel, make, slots, words):
    row, pages = make(np.ones((2, 1, 3), np.float32)), make(np.ones((4, 2, 1, 3), np.float32))
    kernel(row, row, pages, pages, make(np.array([-1, -1])))
    with pytest.raises(ValueError, match=words):
        kernel(row, row, pages, pages, make(np.array(slots)))


@pytest.mark.parametrize(("kernel", "make"), VARLEN)
@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([0, 4, 2, 5], r"cu_seqlens_q\[2\]=2, but should be at least cu_seqlens_q\[1\]=4"),
        ([1, 2, 4, 5], "cu_seqlens_q goes from 1 to 5, but should go from 0 to 5"),
        ([0, 2, 4, 6], "from 0 to 6, but should go from 0 to 5"),
    ],
)
def test_cumulative_lengths_that_do_not_fit(kernel, make, edges, words):
    x, keys = make(np.ones((5, 1, 2), np.float32)), make(np.array([0, 1, 3, 5]))
    kernel(x, x, x, keys, keys)
    with pytest.raises(ValueError, match=words):
        kernel(x, x, x, make(np.array(edges)), keys)


@pytest.mark.parametrize(("kernel", "make"), ROTARY)
def test_positions_and_widths_that_make_no_sense(kernel, make):
    x = make(np.ones((1, 1, 2, 4), np.float32))
    kernel(x, make(np.array([[0, 1]])))
    with pytest.raises(ValueError, match="position 1 is -1, but should be from 0 to 16777216"):
        kernel(x, make(np.array([[0, -1]])))
    for width in (3, 6):
        with pytest.raises(ValueError, match=f"rotary width {width}, but should be even and from 0 to 4"):
            kernel(x, make(np.array([[0, 1]])), rotary_width=width)


@pytest.mark.parametrize(("kernel", "make"), VARLEN)
def test_no_sequences_at_all(kernel, make):
    nothing, edges = make(np.ones((0, 2, 3), np.float32)), make(np.array([0]))
    assert tuple(kernel(nothing, nothing, nothing, edges, edges).shape) == (0, 2, 3)
    assert METHODS["varlen_attention"](nothing, nothing, nothing, edges, edges).shape == (0, 2, 3)
