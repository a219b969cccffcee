"""Kernels that fight back: each gets its right verdict, leaves no process behind and the results of others intact.

ATTEST_HOSTILE_SECONDS is the limit of a call here, for machines so slow that a call which returns takes longer.
"""

import io
import os
import shlex
import tomllib
from functools import cache
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from conformance.cases import parse_case
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.certificate import replay_line
from conformance.certify import Request, certify
from conformance.errors import UsageError
from conformance.examine import Examiner
from conformance.hunting.hunt import Effort, Hunt
from conformance.isolation.arena import Arena
from conformance.isolation.backends import TorchArrays
from conformance.isolation.calling import Caller
from conformance.isolation.sandbox import Limits, Sandbox
from conformance.isolation.template import end_templates
from conformance.isolation.worker import Worker
from conformance.replay import replay
from conformance.report.console import show_certificate

HOSTILE = Path(__file__).parents[1] / "mutants" / "hostile"
with (HOSTILE / "corpus.toml").open("rb") as file:
    KERNELS = tomllib.load(file)["kernel"]

LIMITS = Limits(seconds=float(os.environ.get("ATTEST_HOSTILE_SECONDS", "2")), first_seconds=20.0, memory=1 << 30)
TOKEN = "ATTEST_TEST_OF_HOSTILE_KERNELS"
PLAIN = "attention float32 b=1 h=2 l=3 d=4 g=1 s=5 e=4 q=normal(0){} k=normal(1) v=normal(2)"


@pytest.fixture(scope="module", autouse=True)
def _no_orphans():
    os.environ[TOKEN] = str(os.getpid())
    yield
    for backend in ("numpy", "torch"):
        sandbox_for(backend).stop()
    end_templates()
    assert not running()
    del os.environ[TOKEN]


def running():
    """Processes that inherited this module's mark."""
    mark, found = f"{TOKEN}={os.getpid()}".encode(), []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path("/proc", process, "environ").read_bytes().split(b"\0"):
                found.append(Path("/proc", process, "cmdline").read_bytes())
        except OSError:
            continue
    return found


@cache
def sandbox_for(backend):
    return Sandbox(LIMITS)


def target(name):
    return f"{HOSTILE / name}.py:kernel"


def loaded(entry):
    sandbox = sandbox_for(entry["backend"])
    if entry["backend"] == "numpy":
        sandbox.restart()  # what one kernel does to its process is none of the next one's business
    [implementation] = sandbox.load(f"{HOSTILE / entry['file']}:{entry['function']}", method=entry["method"], backend=entry["backend"])
    return implementation, sandbox


def chosen(condition):
    return [pytest.param(entry, id=entry["file"].removesuffix(".py")) for entry in KERNELS if condition(entry)]


@pytest.mark.parametrize("entry", chosen(lambda entry: entry.get("kinds")))
def test_a_hostile_kernel_is_refuted_for_what_it_does(entry):
    implementation, sandbox = loaded(entry)
    result = Hunt(implementation, "float32", sandbox, Effort(examples=150, diagnose=False)).run()
    assert result.verdict == "refuted", entry["trick"]
    [(finding, _)] = result.findings
    assert finding.kind in entry["kinds"], finding.message
    assert finding.message.isprintable()
    assert len(finding.message) < 4000


@pytest.mark.parametrize("entry", chosen(lambda entry: entry.get("kinds") == []))
def test_what_a_kernel_may_do_is_not_held_against_it(entry):
    implementation, sandbox = loaded(entry)
    examiner, rng = Examiner(implementation, "float32", sandbox), Random(0)
    judgements = [examiner.examine(random_case(rng, implementation, "float32", STAGES[0])) for _ in range(10)]
    judgements.append(examiner.soak(parse_case(PLAIN.format(""))))
    assert [judgement.finding for judgement in judgements if judgement.finding] == []


@pytest.mark.parametrize("entry", chosen(lambda entry: "error" in entry))
def test_what_breaks_when_it_is_loaded_is_one_sentence(entry):
    with Sandbox(Limits(seconds=2.0, first_seconds=3.0)) as sandbox, pytest.raises(UsageError) as raised:
        sandbox.load(f"{HOSTILE / entry['file']}:{entry['function']}", method=entry["method"], backend=entry["backend"])
    assert entry["error"] in str(raised.value)
    assert entry["file"] in str(raised.value)


def test_every_hostile_kernel_is_listed():
    assert {entry["file"] for entry in KERNELS} | {"right.py"} == {path.name for path in HOSTILE.glob("*.py")}


def test_the_results_of_the_other_targets_of_a_run_are_intact():
    names = ["segfaults", "patches_the_judge", "keeps_a_pool", "aborts_at_import", "forges_an_answer"]
    certificates = certify(Request(targets=tuple(map(target, names)), limits=LIMITS, effort=Effort(examples=150, diagnose=False)))
    assert [certificate.verdict for certificate in certificates] == ["refuted", "refuted", "certified", "error", "refuted"]


@pytest.mark.parametrize(
    ("name", "kind", "case", "message"),
    [
        ("wrong_after_10_calls", "depends-on-history", "calls=11", "right in a fresh process, but after 10 earlier calls: out["),
        ("wrong_every_seventh_call", "depends-on-history", "calls=7", "right in a fresh process, but after 6 earlier calls"),
        ("wrong_at_the_first_call", "depends-on-history", "calls=2", "wrong in a fresh process, but right when called again"),
        ("caches_by_shape", "wrong-value", "calls=warm", "out["),
    ],
)
def test_the_line_of_a_finding_about_earlier_calls_brings_it_out_again(name, kind, case, message):
    finding, again = found_and_replayed(name)
    assert (finding.kind, case in str(finding.case), message in finding.message) == (kind, True, True), finding
    assert (again.kind, again.case) == (kind, finding.case)


def test_the_line_of_a_finding_about_timing_brings_one_out_again():
    finding, again = found_and_replayed("finishes_in_a_thread")
    kinds = "changed-later", "depends-on-history", "unrepeatable", "wrong-value"  # by what the thread had done when looked at
    assert finding.kind in kinds
    assert again is None or again.kind in kinds


def found_and_replayed(name):
    request = Request(targets=(target(name),), method="attention", limits=LIMITS, effort=Effort(examples=20, shrink_seconds=1.5))
    [certificate] = certify(request)
    [(finding, _)] = certificate.result.findings
    judgement, _ = replay(replay_line(certificate.implementation, finding), None, Request(limits=LIMITS))
    return finding, judgement.finding


def test_a_case_with_a_past_is_right_where_the_past_does_not_matter():
    implementation, sandbox = loaded({"file": "keeps_a_pool.py", "function": "kernel", "method": "attention", "backend": "numpy"})
    first, second = PLAIN.format(""), PLAIN.format("*30")
    for line in (f"{first} calls=12", f"{second} calls=2", f"{first} calls=warm then {first} calls=1 then {second}"):
        case = parse_case(line)
        assert str(case) == line
        assert Examiner(implementation, "float32", sandbox).examine(case).finding is None


def message_of(name, line):
    [entry] = [entry for entry in KERNELS if entry["file"] == f"{name}.py"]
    implementation, sandbox = loaded(entry)
    return Examiner(implementation, "float32", sandbox).examine(parse_case(line)).finding.message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("allocates_until_refused", ("MemoryError", "64.0 MiB", "(a worker may hold 1 GiB of private memory)")),
        ("allocates_shared_memory", ("the process held 1", "but should hold at most 1 GiB")),
        ("killed_as_out_of_memory", ("killed by SIGKILL, as a system does that runs out of memory",)),
        ("raises_what_cannot_be_printed", ("TileError",)),
        ("raises_keyboard_interrupt", ("raised KeyboardInterrupt",)),
        ("closes_descriptors", ("a call closes file descriptors that it did not open",)),
        ("returns_an_enormous_shape", ("out.shape=(1048576, 1048576, 1024), but should be (1, 2, 3, 4)",)),
        ("deletes_files", ("the file attest.txt in the working directory from 'intact'",)),
        ("sets_environment", ("the environment variable MKL_NUM_THREADS from None to '3'",)),
        ("seeds_numpy", ("the seed of numpy.random",)),
        ("patches_numpy", ("the call changed the function numpy.exp",)),
        ("flushes_subnormals", ("the processor's flushing of subnormal numbers from False to True",)),
        ("changes_directory", ("the working directory from '/", "to '/'")),
    ],
)
def test_a_finding_says_what_happened(name, words):
    message = message_of(name, PLAIN.format(""))
    for part in words:
        assert part in message, message


def test_memory_beyond_the_limit_is_told_by_whichever_sees_it_first():
    message = message_of("torch_allocates_until_refused", PLAIN.format(""))
    refused = ("can't allocate memory", "(a worker may hold 1 GiB of private memory)")
    ended = ("the process held 1", "but should hold at most 1 GiB")
    assert any(all(part in message for part in words) for words in (refused, ended)), message


def test_what_a_kernel_says_reaches_the_terminal_as_text():
    out = io.StringIO()
    for name in ("raises_with_escapes_and_markup", "right_with_markup_in_its_name"):
        for certificate in certify(Request(targets=(target(name),), limits=LIMITS, effort=Effort(examples=3, diagnose=False))):
            show_certificate(Console(file=out, force_terminal=True, highlight=False, soft_wrap=True), certificate)
    assert "[bold green]CERTIFIED[/]" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert "\x1b[32m" not in out.getvalue()


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "copied"])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("torch_scales_queries_in_place", PLAIN.format("")),
        ("torch_writes_behind_the_rows", PLAIN.format("@padded")),
        ("torch_returns_an_argument", "attention float32 b=1 h=1 l=1 d=4 g=1 s=1 e=4 q=normal(0) k=normal(1) v=normal(2)@transposed"),
    ],
)
def test_arguments_that_were_copied_to_a_device_are_watched_like_shared_ones(name, line, shared):
    arena, case = Arena(), parse_case(line)
    worker = Worker(None, arena)
    loading = {"do": "load", "target": target(name), "method": "attention", "backend": "torch"}
    [data] = worker.answer(loading)["implementations"]
    worker.arrays = TorchArrays("cpu", shared=shared)
    caller = Caller(type(sandbox_for("numpy").load(target("keeps_a_pool"), method="attention")[0]).from_json(data), arena)
    responses = caller.responses(worker.answer(caller.request(case, case.arguments())))
    changes, aliases = responses[0].inputs_changed, [response.outputs[0].aliases_input for response in responses]
    assert (changes, aliases) == (((), [True, True]) if "argument" in name else (("q",), [False, False]))
    arena.close()


def test_a_command_line_quotes_a_case_with_a_past():
    case = parse_case(f"{PLAIN.format('')} then {PLAIN.format('')} calls=4")
    assert parse_case(" ".join(shlex.split(shlex.quote(str(case)))[0].split())) == case
