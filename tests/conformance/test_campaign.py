"""Campaigns: the verdicts of `certify`, several at once; what a kill, a death and Ctrl-C leave; the ledger; which findings are one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

import pytest

from conformance.campaign import jobs, ledger
from conformance.campaign.distinct import distinct_findings
from conformance.campaign.ledger import Ledger
from conformance.campaign.processes import Processes
from conformance.campaign.records import certificate_of, record_of
from conformance.campaign.run import TRIES, Campaign, Observer
from conformance.certificate import document
from conformance.certify import Request, certify
from conformance.cli import main
from conformance.errors import UsageError
from conformance.hunting.search import Effort
from conformance.report.html import render

KERNELS = Path(__file__).with_name("campaign_kernels.py")
ZEROS, RIGHT, SAMPLE, WAITS = (f"{KERNELS}:{name}" for name in ("zeros", "load_balance_cv", "of_a_sample", "waits"))
REQUEST = Request(
    targets=(ZEROS, RIGHT, SAMPLE), dtypes=("float32", "float64"), effort=Effort(3, 20.0, diagnose=False)
)  # fmt: skip


def plain(certificates):
    """The document's results without times."""
    results = document(certificates)["results"]
    return [{name: value for name, value in result.items() if not name.startswith("seconds")} for result in results]


@pytest.fixture(scope="module")
def certified():
    """Two certificates of each of three kernels."""
    return certify(REQUEST)


@pytest.fixture(scope="module")
def explained():
    return certify(replace(REQUEST, targets=(SAMPLE,), effort=Effort(3, 20.0)))


def test_verdicts_findings_and_reports_are_those_of_certify(certified):
    campaign = Campaign(REQUEST, Processes(2), Ledger(None, REQUEST))
    assert plain(campaign.run()) == plain(certified)
    assert Counter(certificate.verdict for certificate in certified) == {"refuted": 4, "inconclusive": 2}

    def untimed(certificates):
        for certificate in certificates:
            certificate.result.seconds = 0.0
        return render(certificates)

    assert untimed(campaign.certificates) == untimed(certified)
    assert "<svg" in render(certified)


def test_a_record_loses_nothing_that_a_report_shows(certified, explained):
    assert explained[0].result.trigger is not None
    for certificate in (*certified, *explained):
        again = certificate_of(json.loads(json.dumps(record_of(certificate), allow_nan=False)))
        assert plain([again]) == plain([certificate])
        assert render([again]) == render([certificate])
        assert (again.implementation, again.result.ratios) == (certificate.implementation, certificate.result.ratios)
        assert again.result.implementation == certificate.result.implementation
    missing = certify(Request(targets=("nofile.py:x",)))
    assert certificate_of(json.loads(json.dumps(record_of(missing[0])))) == missing[0]


class Told:
    """A crew that answers from a script: for each job the messages that come of it."""

    def __init__(self, script):
        self.script, self.jobs, self.messages, self.closed = script, [], [], False

    def submit(self, job):
        self.jobs.append((job.target, job.request.dtypes))
        self.messages += [(job, message) for message in self.script.pop(0)]

    def receive(self, seconds=None):
        return self.messages.pop(0)

    def close(self):
        self.closed = True


def started(dtype, *dtypes):
    return {"started": {"name": "x", "dtype": dtype, "dtypes": dtypes}}


def result(certificate):
    return {"result": record_of(certificate), "source": None}


OVER, DIED = {"over": True}, {"died": "was killed by SIGKILL"}


def scripted(request, *script, kept=None):
    crew = Told(list(script))
    campaign = Campaign(request, crew, kept or Ledger(None, request))
    campaign.run()
    assert crew.closed
    assert not crew.script
    return crew.jobs, campaign.certificates


def test_a_death_costs_no_hunt_that_was_done(certified):
    request = replace(REQUEST, targets=(ZEROS,), dtypes=())
    first, second = certified[:2]
    begun = started("float32", "float32", "float64")
    jobs_done, certificates = scripted(request, [begun, result(first), DIED], [started("float64", "float64"), result(second), OVER])
    assert jobs_done == [(ZEROS, ()), (ZEROS, ("float64",))]
    assert plain(certificates) == plain(certified[:2])


def test_a_hunt_that_kills_its_process_every_time_is_an_error_and_the_next_goes_on(certified):
    request = replace(REQUEST, targets=(ZEROS,), dtypes=())
    begun, second = started("float32", "float32", "float64"), [started("float64", "float64"), result(certified[1]), OVER]
    jobs_done, certificates = scripted(request, *[[begun, DIED]] * TRIES, second)
    assert len(jobs_done) == TRIES + 1
    assert [certificate.verdict for certificate in certificates] == ["error", "refuted"]
    assert f"was killed by SIGKILL, {TRIES} times" in certificates[0].error
    jobs_done, certificates = scripted(request, *[[DIED]] * TRIES)
    assert [certificate.verdict for certificate in certificates] == ["error"]
    _, certificates = scripted(request, [begun, {"failed": "KeyError: 'x'"}, OVER], second)
    assert "KeyError" in certificates[0].error


def test_a_target_that_stands_for_several_gives_way_to_them_and_each_is_hunted_once(certified):
    request = replace(REQUEST, targets=(str(KERNELS), SAMPLE), dtypes=())
    outcome = [[started("float32", "float32"), result(replace(certificate, target=target)), OVER] for certificate, target in
               ((certified[4], SAMPLE), (certified[0], ZEROS))]  # fmt: skip
    jobs_done, certificates = scripted(request, [{"expands": [ZEROS, SAMPLE], "source": None}, OVER], *outcome)
    assert [target for target, _ in jobs_done] == [str(KERNELS), SAMPLE, ZEROS]
    assert [certificate.target for certificate in certificates] == [ZEROS, SAMPLE]


def test_what_no_process_can_do_ends_the_campaign():
    crew = Told([[{"refused": "numpy is '1', but '2' where the campaign began"}]] * 3)
    with pytest.raises(UsageError, match="where the campaign began"):
        Campaign(REQUEST, crew, Ledger(None, REQUEST)).run()
    assert crew.closed


def entered(path, request, certificates, source=None):
    with Ledger(str(path), request) as kept:
        for certificate in certificates:
            kept.enter(certificate.target, certificate.dtype, ("float32", "float64"), record_of(certificate), source)


def test_a_line_torn_at_any_byte_counts_as_not_written(tmp_path, certified):
    path = tmp_path / "ledger"
    entered(path, REQUEST, certified[:2])
    whole = path.read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    for cut in [*range(0, len(first), 97), *range(len(first), len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with Ledger(str(path), REQUEST) as kept:
            done = kept.entries.get(ZEROS)
        expected = 1 if cut >= len(first) + len(second) else 0
        assert len(done.records if done else ()) == expected
        assert path.read_bytes() == (first + second * expected)
    for damaged in (second[:-40] + b"\n", b'{"target": "x"}\n', b"[]\n"):
        path.write_bytes(first + damaged + third)
        with pytest.raises(UsageError, match="line 2 of ledger .* is damaged"):
            Ledger(str(path), REQUEST)


def test_a_campaign_goes_on_where_it_was_and_does_nothing_twice(tmp_path, certified):
    path, request = tmp_path / "ledger", replace(REQUEST, targets=(ZEROS,), dtypes=())
    entered(path, request, certified[:1])
    with Ledger(str(path), request) as kept:
        jobs_done, certificates = scripted(request, [started("float64", "float64"), result(certified[1]), OVER], kept=kept)
    assert jobs_done == [(ZEROS, ("float64",))]
    assert plain(certificates) == plain(certified[:2])
    seen = []
    with Ledger(str(path), request) as kept:
        crew = Told([])
        observer = Observer(finished=lambda certificate, known: seen.append((certificate.dtype, known)))
        assert plain(Campaign(request, crew, kept, observer).run()) == plain(certified[:2])
    assert (crew.jobs, seen) == ([], [("float32", True), ("float64", True)])


def test_a_ledger_is_of_one_campaign(tmp_path, certified, monkeypatch):
    path = tmp_path / "ledger"
    with Ledger(str(path), REQUEST), pytest.raises(UsageError, match="is being written by another campaign"):
        Ledger(str(path), REQUEST)
    with pytest.raises(UsageError, match=r"with effort\.seed=0, but this one has 1; name another file"):
        Ledger(str(path), replace(REQUEST, effort=replace(REQUEST.effort, seed=1)))
    with pytest.raises(UsageError, match="conventions"):
        Ledger(str(path), replace(REQUEST, conventions={"causal_alignment": "top-left"}))
    Ledger(str(path), replace(REQUEST, targets=(SAMPLE,), database="elsewhere")).close()
    monkeypatch.setattr(ledger, "versions", lambda: {**jobs.versions(), "numpy": "1.0"})
    with pytest.raises(UsageError, match=r"with numpy='2.*, but this one has '1.0'"):
        Ledger(str(path), REQUEST)


@pytest.mark.parametrize("contents", ["def kernel(q, k, v):\n    return v\n", "{}", '{"results": []}\n'])
def test_a_file_that_is_no_ledger_stays_as_it_is(tmp_path, contents):
    (tmp_path / "file").write_text(contents)
    with pytest.raises(UsageError, match="is no ledger of a campaign"):
        Ledger(str(tmp_path / "file"), REQUEST)
    assert (tmp_path / "file").read_text() == contents
    with pytest.raises(UsageError, match="cannot be written"):
        Ledger(str(tmp_path / "no" / "file"), REQUEST)


def test_what_was_found_of_a_file_that_has_changed_since_is_forgotten(tmp_path, certified):
    kernel = tmp_path / "kernel.py"
    kernel.write_text("one = 1\n")
    made = replace(certified[0], implementation=replace(certified[0].implementation, target=f"{kernel}:zeros"))
    entered(tmp_path / "ledger", REQUEST, [made], jobs.source_of(f"{kernel}:zeros"))
    with Ledger(str(tmp_path / "ledger"), REQUEST) as kept:
        assert list(kept.entries) == [ZEROS]
        kept.expand(str(kernel), [f"{kernel}:zeros"], jobs.source_of(str(kernel)))
    kernel.write_text("one = 2\n")
    with Ledger(str(tmp_path / "ledger"), REQUEST) as kept:
        assert (kept.entries, kept.expansions) == ({}, {})
        kept.enter(ZEROS, "float32", ("float32",), record_of(made), jobs.source_of(f"{kernel}:zeros"))
    with Ledger(str(tmp_path / "ledger"), REQUEST) as kept:
        assert kept.entries[ZEROS].dtypes == ("float32",)


def test_the_source_of_a_module_is_found_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "package" / "inner" / "kernels.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert jobs.source_of("package.inner.kernels:flash") == jobs.source_of("package/inner/kernels.py:flash")
    assert jobs.source_of("package:flash") not in (None, jobs.source_of("package.inner.kernels:flash"))
    assert jobs.source_of("package.nothing:flash") is jobs.source_of("no_such_package:flash") is None


def test_findings_of_one_mistake_in_one_file_are_one(certified, explained):
    again = [replace(one, implementation=replace(one.implementation, name="twice", target=f"{KERNELS}:twice")) for one in explained]
    elsewhere = replace(explained[0], implementation=replace(explained[0].implementation, target="other.py:kernel"))
    found = distinct_findings([*explained, elsewhere, *again, *certified])
    assert [(one.mistake, len(one.certificates)) for one in found] == [
        ("variance-over-one-less", 4), ("variance-over-one-less", 1), ("", 2), ("", 2),
    ]  # fmt: skip
    assert found[0].kernels == {SAMPLE: ["float32", "float64"], "twice": ["float32", "float64"]}
    told = json.loads(json.dumps([one.to_json() for one in found], allow_nan=False))
    assert told[0]["smallest"]["replay"].startswith("attest replay ")


@contextmanager
def campaign(folder, *arguments):
    """A campaign of two kernels, of which one waits for a file; and a way to see every process that it leaves."""
    name, flag = token_hex(8), folder / "flag"
    environment = {**os.environ, "ATTEST_TEST_FLAG": str(flag), "ATTEST_TEST_NAME": name}
    command = [
        sys.executable, "-m", "conformance", "campaign", SAMPLE, WAITS, "--max-examples", "3", "--workers",
        "1", "--ledger", str(folder / "ledger"), "--json", str(folder / "out.json"), *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def left():
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and f"ATTEST_TEST_NAME={name}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    try:
        yield process, flag, left
    finally:
        process.kill()
        process.communicate()


def until(condition, seconds=60.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it does not come"
        time.sleep(0.05)


def running(left, words):
    """Of the processes that are left, those with such words on their command line."""
    found = []
    for one in left():
        with suppress(OSError):
            found += [one] if words in Path(f"/proc/{one}/cmdline").read_bytes() else []
    return found


def calling(left):
    """Whether there is a worker, beside the process that it was forked off."""
    return len(running(left, b"conformance.isolation")) > 1


def at_work(folder, left):
    """One hunt is in the ledger, and the kernel that waits runs: campaign, process and worker."""
    path = folder / "ledger"
    return path.exists() and path.read_bytes().count(b"\n") == 2 and calling(left)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_campaign_that_is_killed_leaves_no_process_and_goes_on_the_same(tmp_path):
    with campaign(tmp_path) as (process, _, left):
        until(lambda: at_work(tmp_path, left))
        process.kill()
        process.wait()
        until(lambda: not left())
    with campaign(tmp_path) as (process, flag, left):
        until(lambda: calling(left))
        # The process of the hunt dies as well, while the kernel is called: its hunt is begun again in another one.
        [hunter] = running(left, b"conformance.campaign.worker")
        os.kill(hunter, signal.SIGKILL)
        until(lambda: hunter not in left())
        flag.touch()
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 1, errors
        assert not left()
    lines = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [line["target"] for line in lines[1:]] == [SAMPLE, WAITS]
    made = json.loads((tmp_path / "out.json").read_text())
    assert [one["verdict"] for one in made["results"]] == ["refuted", "refuted"]
    assert made["distinct_findings"][0]["kernels"] == {SAMPLE: ["float32"], WAITS: ["float32"]}
    assert "2 times" in out


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_leaves_no_process_and_tells_what_was_reached(tmp_path):
    with campaign(tmp_path) as (process, _, left):
        until(lambda: at_work(tmp_path, left))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "interrupted" in errors
        assert "Traceback" not in errors
        assert not left()
    made = json.loads((tmp_path / "out.json").read_text())
    assert (made["interrupted"], [one["target"] for one in made["results"]]) == (True, [SAMPLE])


def test_usage_errors_of_a_campaign_are_a_sentence_and_exit_2(tmp_path, capsys):
    (tmp_path / "kernel.py").write_text("def kernel(q, k, v):\n    return v\n")
    for arguments, words in (
        ((ZEROS, "--ledger", tmp_path / "kernel.py"), "is no ledger of a campaign"),
        ((ZEROS, "--workers", 0), "0 is not in the range x>=1"),
        ((ZEROS, "--no-isolation"), "No such option"),
        ((ZEROS, "--seed", -1), "seed=-1, but should be 0 or greater"),
        (("--method", "attention", "--backend", "abacus"), "backend='abacus', but should be one of"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["campaign", *map(str, arguments)], prog_name="attest")
        assert (end.value.code, words in capsys.readouterr().err) == (2, True)
