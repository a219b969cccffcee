"""Probes of sparse attention: which keys are read, and how many times; which blocks are chosen."""

from __future__ import annotations

from conformance.probes.vocabulary import EQUAL, LONG, ahead

__all__ = ["SPARSE_PROBES"]

# Which keys a sparse method reads, and how many times; then how many of them it can list, and how far away.
SPARSE_PROBES = {
    "local_global_attention": (
        f"l=33 s=33 d=33 window=3 global_tokens=(20,2,20) {EQUAL} v=one_hot(0)",
        f"l=40 s=40 d=40 window=2 global_tokens=(3,39) causal=True {EQUAL} v=one_hot(0)",
        f"l=33 s=33 d=33 window=2 global_tokens=(3,17) global_rows=False {EQUAL} v=one_hot(0)",
        f"l=33 s=33 d=33 window=2 global_tokens=(3,17) global_self=False {EQUAL} v=one_hot(0)",
        f"l=130 s=130 window=2 global_tokens=(0,) h=4 g=2 {ahead(2)}",
        f"l=150 s=150 d=150 window=1 global_tokens={str(tuple(range(1, 147, 2))).replace(' ', '')} {EQUAL} v=one_hot(0)",
        f"window=3 global_tokens=(1,700,1038) {LONG}",
    ),
    "strided_attention": (
        f"l=33 s=33 d=33 stride=4 {EQUAL} v=one_hot(0)",
        f"l=130 s=130 d=130 stride=16 {EQUAL} v=one_hot(0)",
        f"l=97 s=97 stride=32 h=4 g=2 {ahead(-64)}",
        f"stride=7 {LONG}",
    ),
    "fixed_attention": (
        f"l=33 s=33 d=33 stride=4 {EQUAL} v=one_hot(0)",
        f"l=45 s=45 d=45 stride=8 c=3 {EQUAL} v=one_hot(0)",
        f"stride=7 c=2 {LONG}",
    ),
    "bigbird_attention": (
        f"l=45 s=45 d=45 block_size=4 window_blocks=3 global_blocks=1 r=2 {EQUAL} v=one_hot(0) random_blocks=integers(0)",
        f"l=66 s=66 d=66 block_size=8 window_blocks=1 global_blocks=2 r=2 {EQUAL} v=one_hot(0) random_blocks=distinct(1)",
        f"l=33 s=33 d=33 block_size=16 window_blocks=3 global_blocks=0 r=1 {EQUAL} v=one_hot(0) random_blocks=last(0)",
        f"block_size=8 window_blocks=7 global_blocks=5 r=5 random_blocks=distinct(2) {LONG}",
    ),
    "block_sparse_attention": (
        f"b=2 h=2 g=2 l=18 s=35 d=35 block_q=4 block_k=8 {EQUAL} v=one_hot(0) block_mask=random(1)",
        f"l=33 s=33 d=33 block_q=16 block_k=16 causal=True {EQUAL} v=one_hot(0) block_mask=full(0)[1,1,m,n]",
        f"block_q=16 block_k=8 block_mask=random(3) {LONG}",
    ),
    "pattern_attention": (
        f"l=33 s=33 d=33 pattern=skewed:4 {EQUAL} v=one_hot(0)",
        f"l=20 s=37 d=37 pattern=behind:3 {EQUAL} v=one_hot(0)",
        f"l=40 s=40 d=40 pattern=rows:2 {EQUAL} v=one_hot(0)",
        f"pattern=skewed:12 {LONG}",
    ),
}  # fmt: skip
# Which blocks are chosen: of equal ones (2, 4, 8 and 16 compressed blocks weigh exactly the same), and of one that stands out.
FINE = "compress_block=2 compress_stride=2 select_block=2"
COARSE = "compress_block=4 compress_stride=2 select_block=8"
SPARSE_PROBES["native_sparse_attention"] = (
    f"l=37 s=37 d=37 {FINE} select_count=2 window=1 {EQUAL} v=one_hot(0) gates=ones(0)",
    f"b=2 l=33 s=33 d=33 h=4 g=2 {FINE} select_count=1 window=3 {EQUAL} v=one_hot(0) gates=fractions(0)",
    f"l=45 s=45 d=45 {COARSE} select_count=2 window=5 {EQUAL} v=one_hot(0) gates=fractions(1)",
    f"l=66 s=66 {COARSE} select_count=1 window=4 h=4 g=2 {ahead(-20)} gates=fractions(2)",
    f"l=40 s=40 {FINE} select_count=1 window=2 h=2 g=2 {ahead(-6)} gates=ones(0)",
    # As in the paper, but for the length.
    "l=300 s=300 d=4 e=3 compress_block=32 compress_stride=16 select_block=64 select_count=2 window=100 "
    "q=normal(0)*4 k=normal(1) v=normal(2) gates=fractions(3)",
    "l=150 s=150 h=2 d=4 e=3 compress_block=8 compress_stride=4 select_block=8 select_count=16 window=33 "
    "q=normal(0)*4 k=normal(1) v=normal(2) gates=fractions(3)",
)  # fmt: skip
