"""Classes of caches under test: what drives them, how their pages are counted, how fast planted bugs are found."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, seed, settings

from conformance.errors import UsageError
from conformance.hunting.hunt import Hunt
from conformance.hunting.search import Effort
from conformance.isolation.sandbox import Sandbox
from conformance.registry import describe
from conformance.serving.accounts import PageError, Pages
from conformance.serving.driver import CacheDriver
from conformance.serving.machine import cache_machine
from implementations.numpy import kv_cache as in_numpy
from implementations.torch import kv_cache as in_torch
from oracle import METHODS
from oracle.operations import Operation, parse_operations, play

METHOD = METHODS["continuous_batching"]
MUTANTS = Path(__file__).parents[1] / "mutants"
A_MINUTE = 60.0

# The planted bugs of a cache, one for each that the field knows.
PLANTED = {
    "double free": "numpy_wrong/cache_double_free_after_preemption.py",
    "page not freed at finish": "numpy_wrong/cache_pages_not_freed.py",
    "copy-on-write missing": "numpy_wrong/cache_copy_on_write_missing.py",
    "off by one at a page boundary": "numpy_wrong/cache_page_boundary.py",
    "swap restores another order of pages": "numpy_wrong/cache_swap_sorts_pages.py",
    "fork shares the partial last page uncounted": "numpy_wrong/cache_fork_does_not_count.py",
    "stale length after preemption": "numpy_wrong/cache_length_stale_after_preemption.py",
    "table of another request after a removal": "torch_wrong/cache_values_of_removed_row.py",
    "ring overflow": "torch_wrong/cache_rolling_buffer_overflows.py",
    "growth writes the last token only": "numpy_wrong/cache_grows_by_last_token.py",
    "page numbers in a byte": "numpy_wrong/cache_block_table_in_a_byte.py",
}


def cache_of(file):
    specification = importlib.util.spec_from_file_location(Path(file).stem, MUTANTS / file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    sys.modules[module.__name__] = module
    return module.StaticCache if file.startswith("torch") else module.KVCache


def run(machine, examples, number=0, phases=(Phase.generate,)):
    """Without Hypothesis's own shrinking, which takes most of the time and is not what is tested."""
    seed(number)(machine)
    test_case = machine.TestCase
    test_case.settings = settings(test_case.settings, max_examples=examples, stateful_step_count=25, database=None, phases=phases)
    test_case().runTest()


def error_of(machine, **options):
    try:
        run(machine, 200, **options)
    except Exception as error:  # whatever the cache raises is a finding
        return "\n".join([str(error), *getattr(error, "__notes__", ())])
    return None


def script_of(found):
    [line] = [line for line in found.splitlines() if line.startswith("attest replay")]
    return line.partition("operations=")[2].split()[0].rstrip("'")


@pytest.mark.parametrize("bug", PLANTED)
def test_the_state_machine_finds_each_planted_bug_within_a_minute_and_prints_a_short_script(bug):
    started = time.monotonic()
    file = PLANTED[bug]
    found = error_of(cache_machine(cache_of(file), backend=file.partition("_")[0]))
    assert time.monotonic() - started < A_MINUTE
    assert found is not None
    assert len(parse_operations(script_of(found))) <= 5, found


@pytest.mark.parametrize("bug", PLANTED)
def test_a_hunt_finds_each_planted_bug_within_a_minute(bug):
    file = PLANTED[bug]
    with Sandbox() as sandbox:
        [loaded] = sandbox.load(f"{MUTANTS / file}:{'StaticCache' if file.startswith('torch') else 'KVCache'}")
        assert loaded.method == "continuous_batching"
        result = Hunt(loaded, "float32", sandbox, Effort(diagnose=False)).run()
    assert result.verdict == "refuted"
    assert result.seconds_to_finding < A_MINUTE


@pytest.mark.parametrize(
    ("cache", "backend"),
    [
        (in_numpy.PagedCache, "numpy"), (in_numpy.ContiguousCache, "numpy"),
        (in_torch.PagedCache, "torch"), (in_torch.SlidingCache, "torch"),
    ],
)  # fmt: skip
def test_our_own_caches_pass_the_state_machine(cache, backend):
    run(cache_machine(cache, backend=backend), 12)
    run(cache_machine(cache, backend=backend, dtype="bfloat16"), 6)


def test_what_hypothesis_has_shrunk_is_shrunk_further():
    machine = cache_machine(cache_of(PLANTED["stale length after preemption"]))
    found = error_of(machine, phases=(Phase.generate, Phase.shrink))
    assert script_of(found) == "join(0,1);preempt(0);resume(0)"


def test_a_right_cache_may_run_out_of_tokens_and_requests():
    machine = cache_machine(in_numpy.ContiguousCache)()
    machine.start(9, block_size=1, sliding_window=None, scale=None)
    while machine.room(9) == 9:
        machine.join(9)
        machine.do(Operation("finish", machine.absent - 1))
    machine.do(Operation("grow", 0, machine.room(9)))
    machine.do(Operation("finish", 0))
    assert not machine.requests
    assert machine.idle() is None


def test_a_failing_case_of_the_state_machine_replays_from_its_line(tmp_path):
    (tmp_path / "late.py").write_text((MUTANTS / PLANTED["growth writes the last token only"]).read_text())
    specification = importlib.util.spec_from_file_location("late", tmp_path / "late.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    found = error_of(cache_machine(module.KVCache))
    [line] = [line for line in found.splitlines() if line.startswith("attest replay")]
    command = line.removeprefix("attest ")
    done = subprocess.run(
        f"{sys.executable} -m conformance {command}", shell=True, cwd=tmp_path, capture_output=True, text=True, env=path_with(tmp_path)
    )
    assert done.returncode == 1, done.stderr
    assert "after operation" in done.stdout


def path_with(folder):
    import os

    return {**os.environ, "PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}


class Shown:
    """Pages as a test says."""

    def __init__(self, tables, free, pages=6, size=2, **more):
        self.tables, self.free, self.block_size = tables, free, size
        self.k_pages, self.v_pages = np.zeros((pages, size, 1, 1)), np.zeros((pages, size, 1, 1))
        vars(self).update(more)

    def block_tables(self):
        return self.tables

    def free_blocks(self):
        return self.free


def moment_of(script):
    *_, moment = play(parse_operations(script))
    return moment


TWO = "join(0,3);join(1,2)"
FORKED = "join(0,3);fork(0,1)"


@pytest.mark.parametrize(
    ("script", "tables", "free", "words"),
    [
        (TWO, {0: [0, 1], 1: [2]}, [3, 4, 5, 3], "page 3 is free 2 times after operation 1, join\\(1,2\\)"),
        (TWO, {0: [0, 1], 1: [2]}, [2, 3, 4, 5], "page 2 is free although request 1 uses it"),
        (TWO, {0: [0, 1], 1: [2]}, [3, 5], "page 4 is lost, neither free nor used,"),
        (TWO, {0: [0, 1], 1: [1]}, [2, 3, 4, 5], "page 1 is owned twice, by requests 0 and 1"),
        (TWO, {0: [0], 1: [2]}, [1, 3, 4, 5], "request 0 has 1 pages of 2, but 3 tokens"),
        (TWO, {0: [0, 0], 1: [2]}, [1, 3, 4, 5], "page 0 stands 2 times in the block table of request 0"),
        (TWO, {0: [0, 1], 1: [6]}, [2, 3, 4, 5], "page 6 is none of the 6 that there are"),
        (f"{TWO};finish(1)", {0: [0, 1], 1: [2]}, [3, 4, 5], r"request 1 has pages \[2\], but is finished"),
        (f"{TWO};swap_out(1)", {0: [0, 1], 1: [2]}, [3, 4, 5], r"request 1 has pages \[2\], but is swapped out"),
        (f"{FORKED};grow(0,1);grow(1,1)", {0: [0, 1], 1: [0, 1]}, [2, 3, 4, 5], "page 1 is owned twice"),
        (FORKED, {0: [0, 1], 1: [1, 0]}, [2, 3, 4, 5], "page 0 is owned twice"),
    ],
)
def test_pages_that_do_not_add_up_are_told(script, tables, free, words):
    with pytest.raises(PageError, match=words):
        Pages(Shown(tables, free), windowed=False).check(moment_of(script))


@pytest.mark.parametrize(
    ("script", "tables", "free", "more"),
    [
        (TWO, {0: [0, 1], 1: [2]}, [3, 4, 5], {}),
        (TWO, {0: [0, 1, -1, -1], 1: [2, -1]}, (3, 4, 5), {}),
        (TWO, {0: [0, 1], 1: [2]}, [3, 4], {"kept_blocks": lambda: [5]}),
        (FORKED, {0: [0, 1], 1: [0, 1]}, [2, 3, 4, 5], {}),
        (f"{FORKED};grow(0,1)", {0: [0, 1], 1: [0, 1]}, [2, 3, 4, 5], {}),  # the copy has not come so far yet
        (f"{FORKED};grow(0,1)", {0: [0, 1], 1: [0, 2]}, [3, 4, 5], {}),
        (f"{TWO};finish(0)", {0: [], 1: [2]}, [0, 1, 3, 4, 5], {}),
    ],
)
def test_pages_that_add_up_pass_and_free_ones_are_poisoned(script, tables, free, more):
    shown = Shown(tables, free, **more)
    Pages(shown, windowed=False).check(moment_of(script))
    for pages in (shown.k_pages, shown.v_pages):
        assert np.isnan(pages[list(free)]).all()
        assert not np.isnan(pages[[block for table in tables.values() for block in table if block >= 0]]).any()


def test_pages_of_tokens_that_are_alike_by_content_may_be_shared():
    shown = Shown({0: [0, 1], 1: [0]}, [2, 3, 4, 5])
    Pages(shown, windowed=False, alike=lambda one, other: len(one) == len(other)).check(moment_of(TWO))
    with pytest.raises(PageError, match="page 0 is owned twice"):
        Pages(shown, windowed=False).check(moment_of(TWO))


def test_what_was_appended_is_overwritten_where_it_came_from_and_put_back():
    seen = []

    class Keeps(Least):
        def append(self, request, k, v):
            self.k = k

        def attend(self, queries):
            seen.append(self.k.copy())
            return {request: q[..., :1] for request, q in queries.items()}

    k = np.arange(3.0).reshape(3, 1, 1)
    CacheDriver(Keeps, "mine", METHOD)(k.copy(), k, k.copy(), operations="join(0,2);grow(0,1)")
    assert all(np.isnan(one).all() for one in seen)
    np.testing.assert_array_equal(k.ravel(), np.arange(3.0))
    fixed = k.copy()
    fixed.flags.writeable = False
    CacheDriver(Keeps, "mine", METHOD)(k.copy(), fixed, k.copy(), operations="join(0,2);grow(0,1)")
    np.testing.assert_array_equal(seen[-1].ravel(), [2.0])


class Least:
    """What a cache must have, and nothing else."""

    def append(self, request, k, v):
        pass

    def attend(self, queries):
        return {}

    def finish(self, request):
        pass


class Wants(Least):
    def __init__(self, *, pool):
        pass


class NoFinish:
    append = attend = Least.append


def described(cache):
    return describe(cache, method="continuous_batching", backend="numpy", name="mine", target="mine:cache")


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        (Least(), "mine is no class, but continuous_batching is implemented by classes of caches"),
        (NoFinish, "mine has no method finish, but should have append, attend, finish"),
        (Wants, "mine requires 'pool', but should require only some of num_kv_heads, head_dim"),
    ],
)
def test_a_class_that_is_no_cache_is_refused(cache, words):
    with pytest.raises(UsageError, match=words):
        described(cache)


def test_what_a_cache_lacks_becomes_a_restriction_and_what_it_does_not_show_a_remark():
    implementation = described(Least)
    assert set(implementation.restrictions) == {f"'{verb}' not in operations" for verb in ("fork", "preempt", "swap_out")}
    assert implementation.options == ("operations",)
    assert "pages are not counted" in implementation.notes[-1]
    own = described(in_numpy.PagedCache)
    assert own.restrictions == {}
    assert own.notes == []
    assert own.options == ("operations", "sliding_window", "scale")
    assert set(own.tunables) == {"block_size"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda q: {}, "attend gives nothing for request 0 after operation 0, join\\(0,2\\)"),
        (lambda q: {0: q[0][:1]}, r"attend gives float32 \(1, 1, 1\) .* should give float32 \(2, 1, 1\)"),
        (lambda q: {0: q[0].astype(np.float64)}, "attend gives float64"),
        (lambda q: {0: q[0].tolist()}, "attend gives a list"),
    ],
)
def test_an_answer_that_is_none_is_told_with_its_operation(answer, words):
    class Answers(Least):
        def attend(self, queries):
            return answer(queries)

    x = np.zeros((2, 1, 1), np.float32)
    with pytest.raises((TypeError, ValueError), match=words):
        CacheDriver(Answers, "mine", METHOD)(x, x, x, operations="join(0,2)")


REUSES = "numpy_wrong/cache_output_buffer_reused.py"


def test_an_output_that_a_later_call_overwrites_is_a_finding_of_its_own_kind():
    with Sandbox() as sandbox:
        [loaded] = sandbox.load(f"{MUTANTS / REUSES}:KVCache")
        result = Hunt(loaded, "float32", sandbox, Effort(diagnose=False)).run()
    [(finding, _)] = result.findings
    assert finding.kind == "changed-later"
    assert "what attend gave for request" in finding.message


def test_the_state_machine_finds_an_output_that_a_later_call_overwrites():
    found = error_of(cache_machine(cache_of(REUSES)))
    assert "what attend gave for request 0 after operation 0, join(0,1) changed at operation 1" in found
    assert len(parse_operations(script_of(found))) == 2


def test_an_output_may_be_part_of_a_larger_one_and_hold_nan():
    class Together(Least):
        def attend(self, queries):
            together = np.full((sum(map(len, queries.values())), 1, 1), np.nan)
            ends = np.cumsum([len(q) for q in queries.values()])
            return {request: together[end - len(q) : end] for (request, q), end in zip(queries.items(), ends, strict=True)}

    x = np.zeros((4, 1, 1))
    assert np.isnan(CacheDriver(Together, "mine", METHOD)(x, x, x, operations="join(0,2);join(1,1);grow(0,1)")).all()
