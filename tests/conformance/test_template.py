"""Workers that are forked off a template: as far from each other, and as near to the judge, as those that start from nothing."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.isolation.sandbox import MARK, Sandbox, WorkerDied
from conformance.isolation.template import Forked, end_templates, template_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")

KERNEL = """
import os, sys, time
import numpy as np

met = getattr(np, "met_before", False), np.random.random(), "torch" in sys.modules
np.met_before = True
seen = os.getsid(0) == os.getpid(), os.getcwd(), os.environ.get("PYTEST_CURRENT_TEST")
with open(os.environ["TELLS"] + "/" + str(os.getpid()), "w") as file:
    print(*met, *seen, sep="\\n", file=file)


def kernel(q=None, k=None, v=None):
    os.kill(os.getppid() if os.environ["TELLS"].endswith("parent") else os.getpid(), 9)
    time.sleep(30)
"""
MADE = {"do": "call", "size": 64, "calls": [{"copies": [], "keep": [], "layout": None, "arrays": [], "positional": [], "options": {},
        "kinds": {}, "outputs": []}]}  # fmt: skip


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A folder in which a kernel tells what it meets when it is loaded."""
    (tmp_path / "kernel.py").write_text(KERNEL)
    monkeypatch.setenv("TELLS", str(tmp_path))
    yield lambda worker: (tmp_path / str(worker)).read_text().splitlines()
    end_templates()


def loaded(sandbox, folder, **declared):
    sandbox.load(f"{folder / 'kernel.py'}:kernel", method="attention", **declared)
    assert isinstance(sandbox._process, Forked)
    return sandbox._process.pid


def test_workers_of_one_template_share_nothing_and_are_what_others_are(told, tmp_path, monkeypatch):
    with Sandbox() as sandbox, Sandbox() as other:
        first = loaded(sandbox, tmp_path)
        monkeypatch.setenv("PYTEST_CURRENT_TEST", "another")
        monkeypatch.chdir(tmp_path)
        second = loaded(other, tmp_path)
        assert sandbox._process._template is other._process._template
        marks = [f"{MARK}={one._mark}".encode() for one in (sandbox, other)]
        for worker, mark in ((first, marks[0]), (second, marks[1])):
            environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
            assert [entry for entry in environment if entry.startswith(MARK.encode())] == [mark]
            descriptors = [os.readlink(entry) for entry in Path(f"/proc/{worker}/fd").iterdir()]
            assert sum(name.startswith("socket:") for name in descriptors) == 1, "only its own connection"
        (met, number, torch, own, _, _), (met_too, another, torch_too, own_too, folder, test) = told(first), told(second)
        assert (met, met_too, torch, torch_too, own, own_too) == ("False", "False", "False", "False", "True", "True")
        assert number != another
        assert (folder, test) == (str(tmp_path), "another")
    assert not Path(f"/proc/{first}").exists() and not Path(f"/proc/{second}").exists()


def test_what_a_backend_imports_is_there_once_it_is_known_to_be_needed(told, tmp_path):
    with Sandbox() as sandbox:
        assert told(loaded(sandbox, tmp_path, backend="torch"))[2] == "True"
        loaded(sandbox, tmp_path, backend="numpy")
        sandbox.restart()
        assert told(loaded(sandbox, tmp_path, backend="numpy"))[2] == "False"


@pytest.mark.parametrize("victim", ["own", "parent"])
def test_a_worker_that_dies_by_itself_or_with_its_template_is_a_crash_and_another_one_comes(told, tmp_path, monkeypatch, victim):
    folder = tmp_path / victim
    folder.mkdir()
    monkeypatch.setenv("TELLS", str(folder))
    with Sandbox() as sandbox:
        for _ in range(2):
            loaded(sandbox, tmp_path)
            sandbox.send(MADE)
            with pytest.raises(WorkerDied, match="SIGKILL") as death:
                sandbox.receive()
            assert death.value.kind == "crash"
        assert sandbox.starts == 2


def test_another_environment_has_another_template_and_the_first_is_kept(told, tmp_path, monkeypatch):
    with Sandbox() as sandbox, Sandbox() as other, Sandbox() as third:
        loaded(sandbox, tmp_path)
        monkeypatch.setenv("ANOTHER", "1")
        loaded(other, tmp_path)
        monkeypatch.delenv("ANOTHER")
        loaded(third, tmp_path)
        assert sandbox._process._template is third._process._template is not other._process._template


def test_a_process_with_threads_is_not_copied(monkeypatch, tmp_path):
    (tmp_path / "threaded.py").write_text("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n")
    environment = {**os.environ, MARK: "0" * 16, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    assert template_for(environment, ("threaded",), MARK) is None
    assert template_for(environment, (), MARK) is not None
    end_templates()


def test_a_template_ends_with_the_judge_that_is_killed_and_its_workers_with_it():
    judge = (
        "import os, time\nfrom conformance.isolation.sandbox import Sandbox\n"
        "sandbox = Sandbox()\nsandbox.load('numpy.standard')\n"
        "print(sandbox._process.pid, sandbox._process._template._process.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", judge], stdout=subprocess.PIPE, text=True) as process:
        pids = process.stdout.readline().split()
        descriptors = [os.pidfd_open(int(pid)) for pid in pids]
        process.send_signal(signal.SIGKILL)
    for descriptor in descriptors:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        assert waiting.poll(10_000), "it has not ended"
        os.close(descriptor)
