"""High numbers: a fixed list of cases whose blocks, places, positions, sequences and requests small integers cannot number.

A table that is kept in 8 bits, a slot in 16 or a position in float16 is right until a server is under load. These cases have as many
blocks, tokens or sequences as it takes, and next to nothing else: few heads, a column or two. They come in the order of their size,
as the time that a call may take follows from what the calls before it took.
"""

from __future__ import annotations

from collections.abc import Iterator

from conformance.cases.case import Case
from conformance.probes.listing import listed_case, taken_by
from conformance.probes.serving import TOKENS
from conformance.registry import Implementation

__all__ = ["HIGH_NUMBERS", "high_number_cases"]

# Of blocks in reverse order only the last are read. Contexts, and places, beyond 8 and 16 bits, signed or not; 4097 is no number of
# float16. More than eight sequences, too.
FEW = "d=2 e=2 q=normal(0) k_pages=normal(1) v_pages=normal(2)"
MANY_BLOCKS = (
    f"b=5 num_blocks=150 block_size=4 max_blocks=4 {FEW} block_table=reversed(0) context_lens=mixed(3)",
    f"b=8 num_blocks=300 block_size=1 max_blocks=8 {FEW} block_table=scattered(1) context_lens=mixed(2)",
    f"b=9 h=2 g=1 num_blocks=300 block_size=2 max_blocks=3 {FEW} block_table=reversed(0) context_lens=full(0)",
    f"b=1 num_blocks=5 block_size=64 max_blocks=5 {FEW} block_table=in_order(0) context_lens=full(0)",
    f"b=2 num_blocks=280 block_size=128 max_blocks=2 {FEW} block_table=reversed(0) context_lens=full(0)",
    f"b=3 num_blocks=40 block_size=256 max_blocks=17 {FEW} block_table=shared(0) context_lens=after_a_switch(2)",
    f"b=2 num_blocks=66000 block_size=1 max_blocks=4 {FEW} block_table=reversed(0) context_lens=full(0)",
    f"b=1 num_blocks=140 block_size=256 max_blocks=130 {FEW} block_table=reversed(0) context_lens=full(0)",
)
MANY_SLOTS = tuple(
    f"l=9 num_blocks={blocks} block_size={size} d=1 e=2 k=normal(0) v=normal(1) k_pages=normal(2) v_pages=normal(3) slots={slots}"
    for blocks, size, slots in (
        (150, 1, "last(0)"), (300, 1, "scattered(1)"), (300, 2, "last(0)"), (280, 128, "last(0)"), (66000, 1, "last(0)"),
        (66000, 1, "scattered(0)"),
    )
)  # fmt: skip
FEW_PACKED = "d=2 e=2 q=normal(0) k=normal(1) v=normal(2)"
MANY_SEQUENCES = (
    f"l=20 s=300 edges=10 {FEW_PACKED} cu_seqlens_q=equal(0) cu_seqlens_k=equal(0)",
    f"l=300 s=40 edges=18 causal=True {FEW_PACKED} cu_seqlens_q=equal(0) cu_seqlens_k=equal(0)",
    f"l=8 s=33003 edges=3 {FEW_PACKED} cu_seqlens_q=equal(0) cu_seqlens_k=one_long(1)",
    f"l=8 s=65603 edges=3 {FEW_PACKED} cu_seqlens_q=equal(0) cu_seqlens_k=one_long(1)",
)

# More pages of 1, of 16 and of 128 tokens than a byte can number, and tokens than 16 bits with a sign; many requests at the same time,
# and such as have one number in 8 or in 16 bits. Of thousands of tokens the last weigh nearly everything, or the first. There are no
# more than 33003: a cache may keep a causal mask of all its tokens by all its tokens.
FEW_TOKENS = "d=1 e=2 q=ones(0) v=normal(2)"
MANY_PAGES = (
    f"operations=join(3,2);join(259,3);join(65539,4);grow(3,1);finish(259);grow(3,2) {TOKENS}",
    f"operations={';'.join(f'join({request},{1 + request % 3})' for request in range(40))};finish(3);grow(39,1);grow(20,2) {TOKENS}",
    f"block_size=1 operations=join(0,290);join(1,300);grow(0,1);grow(1,9) {FEW_TOKENS} k=normal(1)",
    f"operations=join(0,4113);grow(0,1);join(1,3);grow(1,1);grow(0,9) {FEW_TOKENS} k=newest(0)",
    f"operations=join(0,4113);join(1,20);grow(0,1);finish(1);grow(0,30) {FEW_TOKENS} k=oldest(0)",
    f"operations=join(0,33003);grow(0,1) {FEW_TOKENS} k=newest(0)",
    f"operations=join(0,33003);grow(0,1) {FEW_TOKENS} k=oldest(0)",
)

HIGH_NUMBERS = {
    "continuous_batching": MANY_PAGES,
    "paged_attention": MANY_BLOCKS,
    "varlen_attention": MANY_SEQUENCES,
    "append_to_pages": MANY_SLOTS,
}


def high_number_cases(implementation: Implementation, dtype: str) -> Iterator[Case]:
    """Those that an implementation's options and restrictions admit, always in the same order."""
    return taken_by(implementation, (listed_case(line, implementation, dtype) for line in HIGH_NUMBERS.get(implementation.method, ())))
