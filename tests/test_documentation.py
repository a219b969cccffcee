"""Every block of code in README.md and docs/ does what it says: each page is a folder in which its blocks run in order.

A block of ``python`` whose first line names a file is written there, any other is run; the lines of ``console`` that start with ``$``
and those of ``sh`` are run by a shell; a table ``[tool.attest]`` is read. Comments before a block say more:

    <!-- exit: 1 -->            its last command ends with this code, not with 0
    <!-- output -->             a block of ``text`` that the command before prints, but for numbers and what ``...`` stands for
    <!-- not run: REASON -->    it cannot run here
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.settings import project_settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = ("python", "console", "sh", "toml")

# Enough for a wrong kernel to be refuted; what is certified by so few cases would be inconclusive.
SETTINGS = '[tool.attest]\nmax-examples = 40\nbudget = 20\ndatabase = "none"\ndtypes = ["float32"]\n'

# Blocks that cannot run; whoever adds one has a reason, and says it here too.
NOT_RUN = 12

BLOCK = re.compile(r"(?P<notes>(?:^<!--.*?-->\n+)*)^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    exit: int = 0
    output: bool = False
    reason: str = ""


def blocks_of(text):
    for match in BLOCK.finditer(text):
        notes = dict(re.findall(r"<!-- (exit|output|not run):? ?(.*?) -->", match["notes"]))
        yield Block(match["language"], match["code"], int(notes.get("exit", 0)), "output" in notes, notes.get("not run", ""))


def run(block, folder):
    """What running a block printed."""
    if block.language == "toml":
        (folder / "settings").mkdir()
        (folder / "settings" / "pyproject.toml").write_text(block.code)
        assert project_settings(folder / "settings"), block.code
        return ""
    if block.language == "python":
        first = re.match(r"# (\w+\.py)\n", block.code)
        if first:
            (folder / first[1]).write_text(block.code)
        command = [sys.executable, first[1]] if first else [sys.executable, "-c", block.code]
    else:
        lines = block.code.splitlines()
        script = "\n".join(line[2:] for line in lines if line.startswith("$ ")) if block.language == "console" else block.code
        command = ["bash", "-e", "-c", script]
    path = [str(folder / "bin"), os.environ["PATH"]]
    variables = {"PYTHONPATH": str(ROOT), "PATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300)
    ended = f"ended with {done.returncode}, but should with {block.exit}"
    assert done.returncode == block.exit, f"{block.code}\n{ended}\n{done.stdout}{done.stderr}"
    return done.stdout


def looks_like(shown):
    """A pattern for a line: its words, any numbers, anything for ``...``."""
    words = re.split(rf"{NUMBER}|(\.\.\.)", " ".join(shown.split()))
    # What a split captured is None where a number stood; it lies between the words.
    return re.compile("".join(re.escape(word or "") if index % 2 == 0 else ".*" if word else NUMBER for index, word in enumerate(words)))


def page_folder(folder):
    (folder / "bin").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(SETTINGS)
    attest = folder / "bin" / "attest"
    attest.write_text(f'#!/bin/sh\nexec {sys.executable} -m conformance "$@"\n')
    attest.chmod(0o755)
    return folder


def with_blocks():
    return [page for page in PAGES if any(block.language in RUN and not block.reason for block in blocks_of(page.read_text()))]


@pytest.mark.parametrize("page", with_blocks(), ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_in_order(page, tmp_path):
    folder, printed = page_folder(tmp_path / "page"), ""
    for block in blocks_of(page.read_text()):
        if block.language in RUN and not block.reason:
            printed = run(block, folder)
        elif block.output:
            lines = [" ".join(line.split()) for line in printed.splitlines()]
            for shown in block.code.splitlines():
                assert any(looks_like(shown).match(line) for line in lines), f"{page.name} shows {shown!r}, but was printed\n{printed}"


def test_what_is_not_run_has_a_reason_and_is_counted():
    left_out = [(page.name, block.reason) for page in PAGES for block in blocks_of(page.read_text()) if block.reason]
    assert len(left_out) == NOT_RUN, left_out


def test_a_block_that_fails_or_prints_something_else_is_found(tmp_path):
    text = "<!-- exit: 3 -->\n```sh\nexit 4\n```\n"
    [block] = blocks_of(text)
    with pytest.raises(AssertionError, match="ended with 4, but should with 3"):
        run(block, page_folder(tmp_path / "page"))
    assert looks_like("REFUTED  kernel.py ... within 7.93e-08; 1 of 1").match("REFUTED kernel.py is 0.5 within 1.2e-7; 3 of 12 elements")
    assert not looks_like("explained by a mistake").match("explained by another mistake")
