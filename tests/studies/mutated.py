"""The programs whose mutants are hunted, and why those that survive mean the same.

The specifications are mutated because every mistake of meaning is a change of theirs. The tiled kernels are those in
`implementations.numpy`, because they are what a kernel author writes: loops over tiles of queries and keys, in both
orders, an online softmax, splits and their merge, and tiles that are skipped. Each function is mutated in one program.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conformance.mutation import Mutant, Program, mutation_score, specification
from conformance.registry import registered
from implementations.numpy import dense  # noqa: F401  (registers the kernels)

# Conventions other than the defaults, for each specification: a mutant of their branches shows only where one is declared.
OTHERS = {
    "causal_alignment": "top-left", "head_map": "interleaved", "window_bounds": "exclusive", "softcap_order": "after-bias", "lse_base": "2",
}  # fmt: skip
DECLARED: dict[str, tuple[dict[str, str], ...]] = {
    "attention_with_lse": ({**OTHERS, "empty_row": "nan"}, {**OTHERS, "empty_row": "mean"}),
    "merge_attention_states": ({"lse_base": "2"},),
}

MODULES = ("implementations.tiling", "implementations.numpy.logits", "implementations.numpy.softmax", "implementations.numpy.dense")
ROLES = (
    ("q", "k", "v"), ("queries", "keys"), ("batch", "heads", "groups"), ("query_tile", "key_tile"), ("block_q", "block_k"),
    ("lowest", "highest"), ("maximum", "highest", "shift"), ("total", "kept", "weights", "weighted"), ("decay", "weight"),
    ("start", "stop"), ("out", "lse"),
)  # fmt: skip


def kernel(name: str, entry: str, targets: tuple[str, ...]) -> Program:
    """A registered NumPy kernel."""
    return Program(name, MODULES, entry, targets, registered()[name].implementation, ROLES)


SPECIFICATIONS = (
    specification(
        "attention_with_lse",
        ("split_heads", "join_heads", "allowed_keys", "scores_of_keys", "attention_with_lse", "_filler"),
        (
            ("q", "k", "v"), ("batch", "heads", "kv_heads"), ("outer", "inner"), ("queries", "keys"), ("left", "right"),
            ("allowed", "hidden", "nothing"), ("scores", "weights", "total", "shift"),
        ),
    ),
    specification(
        "merge_attention_states", ("merge_attention_states", "_is_present"),
        (("outs", "lses"), ("weights", "total", "shift"), ("present", "nothing")),
    ),
)  # fmt: skip

FLASH2 = kernel(
    "numpy.flash2_with_lse",
    "flash2_with_lse",
    (
        "tiles", "clamp", "Band.of", "Band.keys_of", "grouped_matmul", "Logits", "row_shift", "normalised", "log_denominator",
        "sink_column", "OnlineSoftmax", "_flash2",
    ),
)  # fmt: skip

KERNELS = (
    FLASH2,
    replace(FLASH2, name="the same, its tiles of 64 unknown to the hunt", implementation=replace(FLASH2.implementation, tunables={})),
    kernel("numpy.flash", "flash", ("Band.queries_of", "_flash")),
    kernel("numpy.split_k_with_lse", "split_k_with_lse", ("splits", "merge_states", "_split_k")),
    kernel("numpy.merge", "merge", ("merge_states", "merge")),
)

PROGRAMS = (*SPECIFICATIONS, *KERNELS)


def explanations(program: Program) -> dict[str, str]:
    """Why mutants of a program mean the same as it does, by name."""
    with Path(__file__).with_name("survivors.toml").open("rb") as file:
        entries = tomllib.load(file)["survivors"]
    mine = [entry for entry in entries if program.name in entry.get("programs", [program.name])]
    return {name: entry["because"] for entry in mine for name in entry["mutants"]}


def elsewhere(program: Program, mutants: Sequence[Mutant]) -> tuple[Mutant, ...]:
    """Those of the mutants that survive in 16 bits, or under other conventions, too."""
    if program in KERNELS:
        return mutation_score(program, mutants=mutants, dtype="float16").survivors
    for conventions in DECLARED[program.implementation.method]:
        declaring = replace(program, implementation=replace(program.implementation, conventions=conventions))
        mutants = mutation_score(declaring, mutants=mutants).survivors
    return tuple(mutants)
