"""Probes of quantised methods: ties, zeros that share a scale, ragged blocks, what is too large, outliers that smoothing takes away."""

from __future__ import annotations

from conformance.probes.vocabulary import EQUAL, PLAIN

__all__ = ["QUANTISED_PROBES"]

# Numbers halfway between codes, which only a scale that is a power of two leaves there; zeros that share a scale; ragged blocks; what is
# too large for given scales.
EIGHT_BITS = ("int8", "float8_e4m3fn", "float8_e5m2")
QUANTIZE_PROBES = (
    *(f"l=9 d=16 format={form} granularity=tensor x=halves(0) scales=powers(3)" for form in EIGHT_BITS),
    *(f"l=9 d=32 format={form} granularity=token x=normal(0) scales=small_scales(0)" for form in EIGHT_BITS),
    *(f"b=2 h=3 l=37 d=8 block_size=16 format={form} granularity=block x=uneven_rows(0)" for form in EIGHT_BITS),
    *(f"b=2 h=3 l=17 d=16 format={form} granularity={shared} x=normal(1)" for form in EIGHT_BITS for shared in ("token", "channel")),
    *(f"b=2 h=3 l=17 d=16 format={form} granularity=tensor x=normal(2)" for form in EIGHT_BITS),
    *(f"l=12 d=5 granularity={shared} block_size=3 x=zeros(0)" for shared in ("token", "channel", "tensor", "block")),
    *(f"l=24 d=5 format={form} granularity={shared} block_size=3 x=zero_rows(2)" for form in EIGHT_BITS for shared in ("token", "block")),
    "l=9 d=16 granularity=channel x=zero_columns(0)",
    "l=12 d=16 granularity=token eps=1.0 x=uneven_rows(0)",
    "l=12 d=16 format=float8_e4m3fn granularity=token eps=0.001 x=zero_rows(0)",
    "l=9 d=16 granularity=token x=normal(0)*1e-30",
    "l=65 d=64 granularity=block x=outlier_columns(0)",
)
DEQUANTIZE_PROBES = (
    *(f"b=2 h=3 l=37 d=8 block_size=16 format={form} granularity=block codes=codes(0) scales=scales(1)" for form in EIGHT_BITS),
    *(
        f"b=2 h=3 l=17 d=16 format={form} granularity={shared} codes=codes(0) scales=scales(1)"
        for form in EIGHT_BITS
        for shared in ("token", "channel", "tensor")
    ),
    "l=12 d=5 granularity=block block_size=5 codes=index(0) scales=ones(0)",
)
MICRO = ("mxfp4", "mxfp8_e4m3", "mxfp8_e5m2", "nvfp4")
TO_BLOCKS_PROBES = (
    *(f"b=2 l=5 d=72 format={form} x=uneven_rows(0)" for form in MICRO),
    *(f"l=5 d=64 format={form} x=halves(0)" for form in MICRO),
    *(f"l=12 d=40 format={form} x=zero_rows(2)" for form in MICRO),
    *(f"l=3 d=20 format={form} x=zeros(0)" for form in MICRO),
    "l=9 d=96 format=nvfp4 x=spread(0)",
    "l=9 d=80 format=mxfp4 x=normal(0)*1e-30",
    "l=9 d=80 format=mxfp8_e5m2 x=normal(0)*1e-36",
)
FROM_BLOCKS_PROBES = (
    *(f"b=2 h=2 l=5 d=72 format={form} codes=codes(0) scales=codes(1)" for form in MICRO),
    "l=5 d=40 format=nvfp4 codes=codes(0) scales=codes(1) tensor_scale=scales(0)",
    "l=3 d=16 format=mxfp4 codes=index(0) scales=codes(0)",
)

# Equal weights, and of one key; outliers that smoothing takes away; ragged blocks, of which the last is small or large.
FLOAT8_PROBES = (
    f"l=3 s=17 d=17 {EQUAL} v=one_hot(0)",
    f"b=2 l=20 s=33 d=33 h=4 g=2 causal=True {EQUAL} v=one_hot(0)",
    f"b=2 l=20 s=37 d=16 h=4 g=2 query_block=8 key_block=16 {PLAIN}",
    "l=20 s=37 d=16 query_block=8 key_block=16 q=uneven_rows(0) k=uneven_rows(1) v=uneven_rows(2)",
    f"l=9 s=21 d=16 key_block=4 causal=True signs=coins(0) {PLAIN}",
    "l=3 s=2 d=8 signs=coins(1) q=outlier_columns(0) k=outlier_columns(1) v=normal(2)",
    f"l=9 s=40 d=8 format=float8_e5m2 {PLAIN}",
    "l=3 s=12 d=8 key_block=4 q=normal(0) k=zero_rows(2) v=zero_rows(3)",
)
SAGE_PROBES = (
    f"l=3 s=17 d=17 {EQUAL} v=one_hot(0)",
    f"b=2 l=20 s=33 d=33 h=4 g=2 causal=True {EQUAL} v=one_hot(0)",
    f"b=2 l=20 s=37 d=16 h=4 g=2 query_block=8 key_block=16 {PLAIN}",
    "b=2 l=20 s=37 d=16 h=2 g=2 query_block=8 key_block=16 smooth_q=True q=outlier_columns(0) k=outlier_columns(1) v=normal(2)",
    "l=9 s=21 d=16 key_block=4 smooth_k=False causal=True q=normal(0) k=uneven_rows(1) v=normal(2)",
    f"b=2 l=9 s=40 d=40 h=2 g=1 format=nvfp4 key_block=16 {PLAIN}",
    "b=2 l=9 s=40 d=24 format=nvfp4 key_block=32 smooth_q=True query_block=4 q=outlier_columns(0) k=outlier_columns(1) v=uneven_rows(2)",
    "l=5 s=33 d=8 format=nvfp4 causal=True q=normal(0)*3 k=spike(1) v=normal(2)",
    "l=3 s=12 d=8 key_block=4 q=normal(0) k=equal(2) v=normal(3)",
    # So few elements that in 16 bits, too, some rows have none at a boundary.
    "b=2 l=8 s=3 d=2 h=4 g=4 key_block=4 q=normal(0)*3 k=outlier_columns(1) v=normal(2)",
    "b=3 l=8 s=5 d=1 h=4 g=4 key_block=4 q=normal(3)*3 k=offset(4) v=normal(5)",
    "b=2 l=8 s=3 d=2 h=2 g=2 format=nvfp4 key_block=16 smooth_k=False q=normal(0)*3 k=normal(1) v=normal(2)",
)
QUANTISED_PROBES = {
    "quantize": QUANTIZE_PROBES,
    "dequantize": DEQUANTIZE_PROBES,
    "quantize_microscaling": TO_BLOCKS_PROBES,
    "dequantize_microscaling": FROM_BLOCKS_PROBES,
    "fp8_attention": FLOAT8_PROBES,
    "sage_attention": SAGE_PROBES,
}
