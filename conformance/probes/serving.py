"""Probes of caches, packed sequences and rotary embeddings: which places of a cache are read, at the edges of blocks and of sequences."""

from __future__ import annotations

from conformance.probes.vocabulary import STRIDED

__all__ = ["SERVING_PROBES"]

# Equal weights: which places of a cache take part is read off the mean of their numbers; at the edges of blocks, beside NaN.
CACHE = "q=zeros(0) k_pages=normal(0)!nan v_pages=bits(0)!nan d=8 e=12"
PAGED_PROBES = (
    f"b=4 num_blocks=16 block_size=4 max_blocks=3 {CACHE} block_table=scattered(1) context_lens=around_blocks(2)",
    f"b=4 num_blocks=16 block_size=4 max_blocks=3 {CACHE} block_table=scattered(1) context_lens=whole_blocks(1)",
    f"b=4 num_blocks=16 block_size=4 max_blocks=3 {CACHE} block_table=without_first(1) context_lens=after_a_switch(1)",
    f"b=5 num_blocks=12 block_size=3 max_blocks=2 {CACHE} block_table=reversed(0) context_lens=first_blocks(3)",
    f"b=3 h=6 g=3 num_blocks=12 block_size=3 max_blocks=4 {CACHE} block_table=stale(0) context_lens=mixed(3)",
    f"b=3 h=4 g=2 num_blocks=8 block_size=1 max_blocks=5 {CACHE} block_table=shared(0) context_lens=mixed(4)",
    f"b=2 num_blocks=5 block_size=16 max_blocks=4 {CACHE} block_table=repeated(0) context_lens=full(0)",
    f"b=2 num_blocks=40 block_size=16 max_blocks=20 {CACHE} block_table=holes(0) context_lens=mixed(1)",
    f"b=3 num_blocks=12 block_size=4 max_blocks=4 window=(3,None) {CACHE} block_table=scattered(5) context_lens=mixed(6)",
    f"b=3 num_blocks=12 block_size=4 max_blocks=4 window=(0,0) {CACHE} block_table=scattered(5) context_lens=mixed(6)",
    f"b=3 num_blocks=12 block_size=4 max_blocks=4 window=(5,None) {CACHE} block_table=scattered(5) context_lens=whole_blocks(2)",
    # The weights add up to one.
    "b=3 num_blocks=12 block_size=4 max_blocks=4 d=8 q=normal(0) k_pages=normal(1) v_pages=ones(0) block_table=scattered(5) "
    "context_lens=mixed(6)",
    "b=2 num_blocks=40 block_size=16 max_blocks=20 d=8 softcap=2.0 q=normal(0)*3 k_pages=normal(1) v_pages=normal(2)!nan@strided "
    "block_table=scattered(0) context_lens=mixed(1)",
    *(
        f"b=3 h=4 g=2 num_blocks=9 block_size=4 max_blocks=4 d=8 q=normal(0)@{layout} k_pages=normal(1)@{layout} "
        f"v_pages=bits(0)@{layout} e=12 block_table=scattered(5)@{layout} context_lens=mixed(6)"
        for layout in STRIDED
    ),
)  # fmt: skip
PACKED = "q=zeros(0) k=normal(0)!nan v=bits(0)!nan d=8 e=12"
VARLEN_PROBES = (
    f"l=9 s=9 edges=4 {PACKED} cu_seqlens_q=equal(0) cu_seqlens_k=equal(0)",
    f"l=17 s=17 edges=4 causal=True {PACKED} cu_seqlens_q=uneven(1) cu_seqlens_k=uneven(1)",
    f"l=7 s=33 edges=3 causal=True {PACKED} cu_seqlens_q=equal(0) cu_seqlens_k=equal(0)",
    f"l=33 s=7 edges=3 causal=True {PACKED} cu_seqlens_q=equal(0) cu_seqlens_k=equal(0)",
    f"l=12 s=20 edges=5 {PACKED} cu_seqlens_q=empty_first(1) cu_seqlens_k=empty_last(1)",
    f"l=12 s=20 edges=6 causal=True {PACKED} cu_seqlens_q=empty_between(1) cu_seqlens_k=uneven(3)",
    f"l=12 s=20 edges=6 {PACKED} cu_seqlens_q=uneven(3) cu_seqlens_k=empty_between(1)",
    f"l=70 s=70 edges=4 causal=True h=4 g=2 {PACKED} cu_seqlens_q=one_long(0) cu_seqlens_k=one_long(0)",
    f"l=40 s=40 edges=4 window=(2,3) {PACKED} cu_seqlens_q=uneven(2) cu_seqlens_k=uneven(2)",
    f"l=20 s=40 edges=4 window=(3,0) {PACKED} cu_seqlens_q=uneven(2) cu_seqlens_k=uneven(2)",
    # Without causality or window: two sequences of whole tiles, and one to three tokens more or one less.
    *(
        f"l={queries} s={keys} edges=3 {PACKED} cu_seqlens_q=equal(0) cu_seqlens_k=equal(0)"
        for queries, keys in ((4, 34), (6, 66), (4, 126), (4, 130), (130, 6), (130, 132), (34, 134), (4, 258), (66, 260))
    ),
    f"l=8 s=30 edges=9 {PACKED} cu_seqlens_q=equal(0) cu_seqlens_k=uneven(4)",
    "l=20 s=33 edges=4 d=8 q=normal(0) k=normal(1) v=ones(0) cu_seqlens_q=uneven(2) cu_seqlens_k=uneven(5)",
    *(
        f"l=20 s=33 edges=4 h=4 g=2 d=8 q=normal(0)@{layout} k=normal(1)@{layout} v=normal(2)@{layout} cu_seqlens_q=uneven(2) "
        "cu_seqlens_k=uneven(5)@padded"
        for layout in STRIDED
    ),
)  # fmt: skip
# Rows by number, so that the output says which of them each place holds.
NEW_ROWS = "k=bits(1) v=bits(3) k_pages=normal(0)!nan v_pages=normal(1)!nan d=8 e=8"
APPEND_PROBES = (
    f"l=5 num_blocks=4 block_size=4 {NEW_ROWS} slots=consecutive(0)",
    f"l=5 num_blocks=4 block_size=4 {NEW_ROWS} slots=across_a_switch(1)",
    f"l=7 num_blocks=5 block_size=3 g=2 {NEW_ROWS} slots=padded(1)",
    f"l=4 num_blocks=4 block_size=4 {NEW_ROWS} slots=last(0)",
    f"l=3 num_blocks=2 block_size=2 {NEW_ROWS} slots=none(0)",
    f"l=40 num_blocks=4 block_size=16 g=3 {NEW_ROWS} slots=scattered(2)",
    "l=5 num_blocks=4 block_size=4 g=2 d=8 k=bits(1)@strided v=bits(3)@transposed k_pages=normal(0)@transposed "
    "v_pages=normal(1)@padded slots=scattered(1)",
)  # fmt: skip
# At position 0 nothing is turned; of ones, the output is cos - sin and sin + cos.
ROTARY_PROBES = (
    "b=2 l=3 h=2 d=8 x=normal(0) positions=zeros(0)[1,l]",
    "l=9 d=2 x=ones(0) positions=from_zero(0)[1,l]",
    "l=9 d=8 x=one_hot(0) positions=from_zero(0)[1,l]",
    "l=9 d=8 interleaved=True x=one_hot(0) positions=from_zero(0)[1,l]",
    "b=3 l=9 d=12 rotary_width=4 x=ones(0) positions=padded(1)[b,l]",
    "b=3 l=9 d=12 rotary_width=8 interleaved=True x=one_hot(0) positions=any(1)[b,l]",
    "b=2 l=17 d=16 base=500000.0 x=ones(0) positions=continued(1)[b,l]",
    "b=2 l=17 d=16 base=100.0 x=one_hot(3)@strided positions=continued_far(1)[1,l]",
)  # fmt: skip

# Tokens by number, in the order in which they come: a query gives the mean of the numbers of those that it reads.
TOKENS = "q=zeros(0) k=normal(0) v=bits(0) d=8 e=8"
CACHE_PROBES = (
    f"operations=join(0,15);grow(0,1);grow(0,1) {TOKENS}",
    f"operations=join(0,16);grow(0,17) {TOKENS}",
    f"operations=join(0,2);grow(0,62) {TOKENS}",
    f"operations=join(0,33);fork(0,1);grow(0,1);grow(1,1);grow(0,15);grow(1,17) {TOKENS}",
    f"operations=join(0,32);fork(0,1);grow(0,1);grow(1,1);finish(0);grow(1,1) {TOKENS}",
    f"operations=join(0,5);fork(0,1);fork(1,2);grow(1,1);grow(0,1);grow(2,1);finish(1);grow(2,1);grow(0,1) {TOKENS}",
    f"operations=join(0,50);swap_out(0);join(1,20);swap_in(0);grow(0,1) {TOKENS}",
    f"operations=join(0,17);fork(0,1);swap_out(1);finish(0);join(0,17);swap_in(1);grow(1,1) {TOKENS}",
    f"operations=join(0,17);preempt(0);join(1,2);resume(0);grow(0,1) {TOKENS}",
    f"operations=join(0,5);finish(0);join(0,3);grow(0,2) {TOKENS}",
    f"operations=join(0,5);swap_out(0);finish(0);join(0,5);preempt(0);finish(0);join(0,3) {TOKENS}",
    f"operations=join(0,3);join(7,20);grow(0,1);grow(7,18);finish(0);grow(7,1) {TOKENS}",
    # All keys alike: who finds tokens by their keys takes the values of others.
    f"operations=join(0,17);join(1,33);grow(0,1);fork(1,2);grow(0,16) {TOKENS.replace('k=normal', 'k=zeros')}",
    f"sliding_window=16 operations=join(0,40);grow(0,1);grow(0,16) {TOKENS}",
    f"sliding_window=5 operations=join(0,17);fork(0,1);grow(0,12);grow(1,1);grow(1,1) {TOKENS}",
    f"sliding_window=1 operations=join(0,2);grow(0,3) {TOKENS}",
    f"h=4 g=2 operations=join(0,3);join(1,2);grow(0,1) {TOKENS}",
    "operations=join(0,33);grow(0,1) q=normal(0) k=normal(1) v=ones(0) d=8",
)  # fmt: skip

SERVING_PROBES = {
    "continuous_batching": CACHE_PROBES,
    "paged_attention": PAGED_PROBES,
    "varlen_attention": VARLEN_PROBES,
    "append_to_pages": APPEND_PROBES,
    "rotary_embedding": ROTARY_PROBES,
}
