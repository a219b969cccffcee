"""Cases of high numbers: which integers they exceed, that there is little besides, and that a slow implementation is spared them."""

import numpy as np
import pytest

from conformance.adequacy import Adequacy
from conformance.examine import Examiner
from conformance.hunting.search import Effort, Search
from conformance.isolation.sandbox import InProcess
from conformance.probes import high_number_cases
from conformance.probes.high_numbers import HIGH_NUMBERS
from conformance.registry import Implementation, usual_tunables
from oracle import METHODS
from oracle.domains import used_blocks
from oracle.operations import count_tokens, parse_operations, play


def cases_of(method, dtype="float32"):
    known = METHODS[method]
    taking = Implementation("any", method, "numpy", "any:any", options=known.keywords, tunables=usual_tunables(known.tunables))
    return list(high_number_cases(taking, dtype))


@pytest.mark.parametrize("method", HIGH_NUMBERS)
def test_there_is_little_besides_the_numbers_and_larger_cases_come_later(method):
    cases = cases_of(method)
    assert len(cases) == len(HIGH_NUMBERS[method])
    sizes = [sum(x.nbytes for x in case.arguments().values() if isinstance(x, np.ndarray)) for case in cases]
    assert max(sizes) < 2e6
    assert max(sizes[:2]) < max(sizes[-2:]) / 20


def test_blocks_places_and_contexts_exceed_integers_of_8_and_16_bits():
    blocks, slots, contexts = [], [], []
    for case in cases_of("paged_attention"):
        given, size = case.arguments(), case.dims["block_size"]
        read = given["block_table"][used_blocks(case.dims["max_blocks"], size, given["context_lens"])]
        blocks.append(int(read.max()))
        slots.append(int(read.max()) * size)
        contexts += given["context_lens"].tolist()
    assert any(127 < block < 150 for block in blocks)
    assert any(255 < block < 300 for block in blocks)
    assert max(blocks) > 65535
    assert any(block < 300 and slot > 32767 for block, slot in zip(blocks, slots, strict=True))
    assert any(255 < context < 2048 for context in contexts)
    assert any(context < 32768 and int(np.float16(context)) != context for context in contexts)
    assert max(contexts) > 32767
    assert any(case.dims["b"] == 9 for case in cases_of("paged_attention"))


def test_slots_and_offsets_exceed_integers_of_8_and_16_bits():
    slots = [int(case.arguments()["slots"].max()) for case in cases_of("append_to_pages")]
    assert {int(slot > 127) + (slot > 255) + (slot > 32767) + (slot > 65535) for slot in slots} == {1, 2, 3, 4}
    starts = [int(case.arguments()["cu_seqlens_k"][-2]) for case in cases_of("varlen_attention")]
    assert any(32767 < start < 65536 for start in starts)
    assert any(start > 65535 for start in starts)
    assert {case.dims["edges"] for case in cases_of("varlen_attention")} >= {10, 18}


def test_tokens_and_requests_of_caches_exceed_integers_of_8_and_16_bits():
    scripts = [parse_operations(case.options["operations"]) for case in cases_of("continuous_batching")]
    tokens = [count_tokens(script) for script in scripts]
    assert any(257 * 16 < count < 5000 for count in tokens)
    assert any(257 * 128 < count for count in tokens)
    assert max(len(moment.resident) for script in scripts for moment in play(script)) == 40
    numbers = {one.request for one in scripts[0] if one.verb == "join"}
    assert len({number % 256 for number in numbers}) == len({number % 65536 for number in numbers}) - 1 == 1


@pytest.mark.parametrize(("examples", "met"), [(600, True), (10**7, False)])
def test_an_implementation_so_slow_that_not_all_cases_fit_into_the_time_is_spared_them(examples, met):
    sandbox, stages = InProcess(), []
    [implementation] = sandbox.load("numpy.paged_blocks")
    examiner = Examiner(implementation, "float32", sandbox)
    search = Search(examiner, Adequacy(implementation), Effort(examples=examples, seconds=1e3))

    class Enough(Exception):
        pass

    def look(case):
        stages.append(search.stage)
        if search.stage in ("high numbers", "aimed") or search.executed > 80:
            raise Enough
        return examiner.examine(case)

    with pytest.raises(Enough):
        search.run(look)
    assert ("high numbers" in stages) is met
