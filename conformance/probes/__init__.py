"""Probes: a fixed list of small cases whose right answer is known and whose wrong one tells what was read instead.

Values that are codes make an output legible. ``bits``: each row of v is its own number in binary, so where logits select
one key (``signs`` in q and k) the output says which one was read. ``one_hot``: the output is the weights themselves.
``ones``: it is their sum. With q = 0 all weights are equal. The oracle judges a probe as it does every case; `reading`
adds to a finding what the output says.
"""

from __future__ import annotations

from conformance.probes.high_numbers import high_number_cases
from conformance.probes.listing import probe_cases
from conformance.probes.long_rows import long_cases
from conformance.probes.reading import read, reading

__all__ = ["high_number_cases", "long_cases", "probe_cases", "read", "reading"]
