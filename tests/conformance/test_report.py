"""The HTML report: it shows every verdict, escapes what kernels may say, and works in a browser."""

import html
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from conformance.cases import parse_case
from conformance.certificate import Certificate
from conformance.cli import main
from conformance.diagnosis.pictures import MOST, picture_of
from conformance.diagnosis.weighing import keys_shown, weighing
from conformance.hunting.hunt import HuntResult
from conformance.judge import Finding, Judgement
from conformance.registry import Implementation
from conformance.report.html import render
from oracle.readings import Expected
from oracle.readings.contract import CONTRACTS

CASE = parse_case("attention float32 b=2 h=1 l=3 d=1 g=1 s=2 e=4 causal=True q=normal(0) k=normal(0) v=normal(0) block_q=2")
HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
IMPLEMENTATION = Implementation("mine.flash", "attention", "numpy", "my_kernel.py:flash", options=("causal", "scale"))
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
BROWSER = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom",
]  # fmt: skip


def judged(shape=(2, 1, 3, 4), wrong=(1, 0, 2, 3)):
    exact = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    got = exact.astype(np.float32)
    got[wrong] += 1
    finding = Finding("wrong-value", CASE, "out[1, 0, 2, 3] is 24, but should be 23", "out[1, 0, 2, 3]", 24.0, 23.0, 1e-6, 1e6)
    return Judgement(CASE, finding, outputs=(got,), wanted=(Expected(exact, np.full(shape, 1e-6)),))


def certificate(verdict, number=0, text="", dtype="float32"):
    implementation = replace(IMPLEMENTATION, name=f"mine.flash_{number}{text}", description=text)
    result = HuntResult(
        verdict, CONTRACTS["float32"], implementation, 500, 7.5, 0.125, str(CASE), ruled_out=["scale-twice"],
        coverage=Counter({"causal": 250, "scale": 3, "causal x scale": 2}), ratios=[0.0, 1e-9, 0.03, 0.125, 1.0],
    )  # fmt: skip
    if verdict == "refuted":
        judgement = judged()
        result.findings = [(replace(judgement.finding, message=f"{judgement.finding.message}{text}", details=text), ["scale-twice"])]
        result.pictures = [picture_of(judgement)]
    if verdict == "inconclusive":
        result.not_ruled_out = ["unstable-softmax"]
    return Certificate(f"my_kernel.py:flash_{number}", implementation, dtype, result=result)


EVERY = [*(certificate(verdict, number) for number, verdict in enumerate(("certified", "refuted", "inconclusive")))]
EVERY.append(Certificate("nofile.py:x", error="target file 'nofile.py' does not exist"))


class Balanced(HTMLParser):
    """Whether every element that is opened is closed, in order."""

    VOID = ("meta", "input", "link", "br", "img")

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.seen = [], [], Counter()

    def handle_starttag(self, tag, attributes):
        self.seen[tag] += 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen[tag] += 1

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def parsed(text):
    parser = Balanced()
    parser.feed(text)
    assert (parser.open, parser.wrong) == ([], [])
    return parser.seen


def test_every_verdict_is_shown_with_what_it_rests_on():
    text = render(EVERY, [("broken", "ImportError: no such thing")])
    parsed(text)
    plain = html.unescape(re.sub(r"<[^>]+>", " ", text))
    for words in (
        "1 refuted", "1 error", "1 inconclusive", "1 certified", "500 cases in 7.5 s", "out[1, 0, 2, 3] is 24", "Explained by",
        "attest replay 'target=my_kernel.py:flash backend=numpy attention float32", "1 mistakes not ruled out", "scale-twice",
        "target file 'nofile.py' does not exist", "broken: ImportError: no such thing", "unstable-softmax",
        "Cases that passed, by their worst error over budget",
    ):  # fmt: skip
        assert words in plain, words
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_the_summary_links_to_every_result():
    text = render(EVERY)
    linked = set(re.findall(r'href="#(result-\d+)"', text))
    assert linked == set(re.findall(r'<article id="(result-\d+)"', text)) == {f"result-{number}" for number in range(4)}


@pytest.mark.parametrize("count", [0, 500])
def test_a_report_of_nothing_and_one_of_many_are_whole(count):
    certificates = [certificate(("certified", "refuted")[number % 2], number // 2, dtype=f"float{number % 2}") for number in range(count)]
    assert parsed(render(certificates))["article"] == count


def test_what_a_kernel_says_is_text_and_never_markup():
    text = render([certificate("refuted", text=HOSTILE), Certificate(HOSTILE, error=HOSTILE)], [(HOSTILE, HOSTILE)])
    seen = parsed(text)
    assert (seen["script"], seen["img"]) == (1, 0)
    assert HOSTILE in html.unescape(text)


def test_a_picture_is_of_the_plane_of_the_worst_element():
    picture = picture_of(judged())
    assert (picture.title, picture.axes, picture.tile) == ("out, batch 1, head 0", ("query", "value element"), (2, 0))
    np.testing.assert_array_equal(np.argwhere(picture.ratio > 1), [[2, 3]])
    assert picture.got[2, 3] == picture.expected[2, 3] + 1


def test_a_large_picture_shows_what_is_around_the_worst_element():
    picture = picture_of(judged((2, 1, 100, 90), (0, 0, 99, 45)))
    assert (picture.got.shape, picture.shape, picture.start) == ((MOST, MOST), (100, 90), (60, 25))
    np.testing.assert_array_equal(np.argwhere(picture.ratio > 1), [[39, 20]])


def test_nothing_is_pictured_where_nothing_came_back():
    assert picture_of(replace(judged(), outputs=(), wanted=())) is None
    assert picture_of(Judgement(CASE, None)) is None


def test_the_command_writes_a_report(tmp_path):
    path = tmp_path / "report.html"
    arguments = ["certify", "numpy.merge", "nowhere.py:kernel", "--dtype", "float32", "--max-examples", "30", "--html", str(path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert parsed(path.read_text(encoding="utf-8"))["article"] == 2


def test_a_report_that_cannot_be_written_is_refused_before_the_hunt():
    done = CliRunner().invoke(main, ["certify", "numpy.merge", "--html", "/nowhere/report.html"])
    assert (done.exit_code, "html file '/nowhere/report.html' cannot be written" in done.stderr) == (2, True)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
@pytest.mark.parametrize("certificates", [[], EVERY, [certificate("refuted", text=HOSTILE)]], ids=["empty", "every", "hostile"])
def test_a_browser_shows_it_without_an_error(tmp_path, certificates):
    path = tmp_path / "report.html"
    path.write_text(render(certificates), encoding="utf-8")
    command = [CHROMIUM, *BROWSER, f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    if certificates:  # written by the script
        assert re.search(r'id="shown" role="status">(\d+) of \1 implementations<', done.stdout)
    assert Path(path).stat().st_size > 1000


@pytest.mark.parametrize(
    ("line", "dims", "possible"),
    [
        ("attention float32 b=1 h=2 l=3 d=4 g=1 s=9 e=5 causal=True q=ones(0) k=normal(1) v=normal(2)@strided calls=warm", {"e": 9}, True),
        ("retention float32 b=1 h=1 l=6 d=2 e=4 q=normal(0) k=normal(1) v=normal(2) decay=decays(0)", {"e": 6}, True),
        ("attention float32 b=1 h=1 l=3 d=4 g=1 s=1 e=5 q=normal(0) k=normal(1) v=normal(2)", {}, False),
        ("attention float32 b=1 h=1 l=3 d=4 g=1 s=500 e=5 q=normal(0) k=normal(1) v=normal(2)", {}, False),
        ("rotary_embedding float32 b=1 h=1 l=3 d=4 x=normal(0) positions=from_zero(0)", {}, False),
    ],
)
def test_a_call_can_be_made_to_show_its_weights(line, dims, possible):
    case = parse_case(line)
    shown = weighing(case)
    assert (shown is not None) is possible
    assert not keys_shown(case)
    if shown is not None:
        assert shown.dims == {**case.dims, **dims}
        assert str(shown.arrays["v"]) == "one_hot(0)"
        assert shown.arrays["k"] == case.arrays["k"] and not shown.warm and keys_shown(shown)


def test_the_weights_of_a_refuted_kernel_are_drawn_as_they_are_and_should_be(tmp_path):
    kernel = tmp_path / "top_left.py"
    kernel.write_text(
        "import numpy as np\n\n\ndef attend(q, k, v, *, causal=False):\n"
        "    logits = q @ np.swapaxes(np.repeat(k, q.shape[1] // k.shape[1], 1), -1, -2) / np.float32(q.shape[-1]) ** 0.5\n"
        "    weights = np.exp(logits - logits.max(-1, keepdims=True, initial=-1e30))\n"
        "    weights = weights / weights.sum(-1, keepdims=True) if not causal else np.where(np.tri(*logits.shape[-2:]), weights, 0)\n"
        "    return weights @ np.repeat(v, q.shape[1] // k.shape[1], 1)\n"
    )
    out = tmp_path / "report.html"
    command = ["certify", f"{kernel}:attend", "--method", "attention", "--dtype", "float32", "--max-examples", "80", "--html", str(out)]
    done = CliRunner().invoke(main, [*command, "--database", "none", "--restrict", "s > 1"])
    assert done.exit_code == 1, done.output
    text = out.read_text()
    assert "weights of the keys" in text
    assert re.search(r"<title>query \d+, key \d+: ", text)
