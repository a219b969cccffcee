"""Which publicly reported mistakes the corpus and the pitfalls re-create, and why the others are not: writes docs/bugs.md.

    python tests/studies/bugs.py

The rows are those of BUGS.md, the project's list of reports, by its identifiers. A row is covered by the kernels whose
`report` names it and by the pitfalls whose citation is one of its reports.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import click
from corpus import ROOT, WRONG, kernels

from conformance.pitfalls import pitfalls_for
from oracle import METHODS

BACKWARD = "gradients are not judged yet"
ROUTING = "routing is not a method yet"
STATE_SPACE = "state space models are not methods yet"
LATENT = "latent attention is not a method yet"
RING = "attention over several devices is not a method yet"
QUANTISED = "quantised caches are not a method yet"
OPEN = "the report leaves the cause open"

# Identifier: its reports, and for rows that nothing re-creates, why. "as Bnn" is the same mistake as another row.
ROWS: dict[str, tuple[str, str]] = {
    "B01": ("pytorch#103963, pytorch#103749, pytorch#109517", ""),
    "B02": ("pytorch#101967, flashinfer#942, flashinfer#945", ""),
    "B03": ("flashinfer#4401, flashinfer#4267, flashinfer#4450, flashinfer#4451, flashinfer#4452", ""),
    "B04": ("flash-attention commit 26d7d92f", ""),
    "B05": ("flash-attention#443", BACKWARD),
    "B06": ("flash-attention#334", BACKWARD),
    "B07": ("flash-attention#1947", BACKWARD),
    "B08": ("pytorch#196678", ""),
    "B09": ("flashinfer#3716", ""),
    "B10": ("flash-attention commit a4f148b6", ""),
    "B11": ("flash-attention commit 9ee0ff1d", BACKWARD),
    "B12": ("pytorch#181133, pytorch#163597", ""),
    "B13": ("pytorch#174861", ""),
    "B14": ("pytorch#191937", ""),
    "B15": ("flash-attention#2745", ""),
    "B16": ("torch-spyre#4331", ""),
    "B17": ("flashinfer#1865", ""),
    "B18": ("flashinfer#527", ""),
    "B19": ("flash-attention#2388", ""),
    "B20": ("flash-linear-attention#871", BACKWARD),
    "B21": ("xformers#535, xformers#548", BACKWARD),
    "B22": ("pytorch#187227, pytorch#162588", ""),
    "B23": ("flash-attention#1500, flash-attention#2260, flash-attention#2662", ""),
    "B24": ("flashinfer#3130", ""),
    "B25": ("flashinfer#1290", ""),
    "B26": ("flash-linear-attention#1080, mamba#1015, SageAttention#386", ""),
    "B27": ("flash-attention#282, pytorch#108108, pytorch#103082, pytorch#144858, mlx#2835, onnx#8068, openvino#36680", ""),
    "B28": ("transformers#39408, transformers#29623, vllm#3385, zml#763, LightLLM#1311, LightLLM#1312, mlx-lm#390, openvino#30714", ""),
    "B29": ("flash-attention#2549", BACKWARD),
    "B30": ("flash-attention commit b3f1b6a5", ""),
    "B31": ("onnx#7274, jax-js#180, axlearn#842, ONNXim#34", ""),
    "B32": ("prime-rl#2681", ""),
    "B33": ("flashinfer#1148, flashinfer#1614", ""),
    "B34": ("sglang#40903, sglang#35045, flashinfer#4485, flashinfer#4547, flashinfer#2113, tokenspeed#571, cudnn-frontend#931", ""),
    "B35": ("flashinfer#787", ""),
    "B36": ("maxtext#1370", ""),
    "B37": ("flashinfer#440, flashinfer#58, flashinfer#1071", ""),
    "B38": ("flashinfer#3838 (defect 2)", ""),
    "B39": ("flashinfer#3838 (defect 3)", ""),
    "B40": ("flashinfer#3838 (defect 1)", ""),
    "B41": ("flashinfer#1395", ""),
    "B42": ("flashinfer#3022", ""),
    "B43": ("flashinfer#4347, vllm#27547, vllm#42420", ""),
    "B44": ("vllm#42494, vllm#53856, vllm#14597", ""),
    "B45": ("flashinfer#1023, flashinfer#4979, vllm#42580, sglang#20705", QUANTISED),
    "B46": ("flashinfer#1028", ""),
    "B47": ("flashinfer#1178", ""),
    "B48": ("flashinfer#1206", ""),
    "B49": ("xformers CHANGELOG 0.0.23", ""),
    "B50": ("xformers#1185", ""),
    "B51": ("xformers#103, jax#19237", ""),
    "B52": ("xformers#1122", "the call itself is invalid; attest makes valid calls only"),
    "B53": ("xformers#722", ""),
    "B54": ("xformers#719", ""),
    "B55": ("xformers#724, nki-samples#81", BACKWARD),
    "B56": ("rocm-libraries#12227, modular#6591, sglang-jax#905, sglang#35092", ""),
    "B57": ("TransformerEngine#3391", ""),
    "B58": ("flash-attention#2544, flash-attention#1856", BACKWARD),
    "B59": ("composable_kernel#1352", BACKWARD),
    "B60": ("maxtext#4476", ""),
    "B61": ("flash-linear-attention#842, flash-linear-attention#1088", ""),
    "B62": ("diffusers#14265", BACKWARD),
    "B63": ("sglang#33353, sglang#33327", ""),
    "B64": ("flash-linear-attention#104, flash-linear-attention#99, flash-linear-attention#122, flash-linear-attention#77", ""),
    "B65": ("flash-linear-attention commit 0c1c0b65", ""),
    "B66": ("flash-linear-attention#623", ""),
    "B67": ("flash-linear-attention#794", ""),
    "B68": ("flash-linear-attention#850", ""),
    "B69": ("flash-linear-attention#1141", BACKWARD),
    "B70": ("flash-linear-attention#1071", BACKWARD),
    "B71": ("flashinfer#2822", ""),
    "B72": ("flashinfer#2889", ROUTING),
    "B73": ("vLLM-metax#270", ROUTING),
    "B74": ("PaddleFormers#3452", ROUTING),
    "B75": ("megablocks#87, minimind#858", ROUTING),
    "B76": ("NeMo Automodel#2591", ROUTING),
    "B77": ("flashinfer#3803", ROUTING),
    "B78": ("nsa-release#3, lattice#6", ""),
    "B79": ("native-sparse-attention#23, native-sparse-attention#16", ""),
    "B80": ("cudnn-frontend#385", BACKWARD),
    "B81": ("pytorch#139462", ""),
    "B82": ("pytorch#141126, pytorch#182593", ""),
    "B83": ("pytorch#172225", ""),
    "B84": ("pytorch#193893", OPEN),
    "B85": ("pytorch#184330", "the list of methods gives no scale for a head width of 0, so none is drawn"),
    "B86": ("llama.cpp#7903", ""),
    "B87": ("flash-attention commit 188643b8", ""),
    "B88": ("sglang#20278", ""),
    "B89": ("TensorRT-LLM#13006, FastDeploy#3514", ""),
    "B90": ("onnxruntime#26390, lattice#392, tiny-vllm#6, meganeura#38", ""),
    "B91": ("flash-linear-attention#967, flashinfer#847", ""),
    "B92": ("sglang#38666", LATENT),
    "B93": ("pytorch#160064", ""),
    "B94": ("TabPFN#888", "as B12"),
    "B95": ("llama.cpp#29034", ""),
    "B96": ("transformers#27114", ""),
    "B97": ("vllm#51902, pegainfer#613", "a row that changes within rounding is right; equality of bits is not judged"),
    "B98": ("flash-linear-attention#671", OPEN),
    "B99": ("cudnn-frontend#1083", ""),
    "B100": ("cudnn-frontend#462", BACKWARD),
    "B101": ("TransformerEngine#3249", BACKWARD),
    "B102": ("TransformerEngine#3331", ""),
    "B103": ("TransformerEngine#3333, TransformerEngine#2186, TransformerEngine#1539, TransformerEngine#2344", BACKWARD),
    "B104": ("jax#39576", ""),
    "B105": ("flashinfer#4270", ""),
    "B106": ("tt-metal#30362", ""),
    "B107": ("tt-metal#55333", ""),
    "B108": ("vllm#23279, vllm#21783, sglang#31833, sglang#33450", STATE_SPACE),
    "B109": ("mamba#537", BACKWARD),
    "B110": ("mamba#368", BACKWARD),
    "B111": ("mamba#371", STATE_SPACE),
    "B112": ("mamba#716", STATE_SPACE),
    "B113": ("pytorch#188302, pytorch#148476", BACKWARD),
    "B114": ("pytorch#162362", "as B22"),
    "B115": ("TileOps#905", f"{LATENT}; {OPEN}"),
    "B116": ("mlir-air#1427, mlir-air#1450", ""),
    "B117": ("Liger-Kernel#259", "a mistake of a checker: tests/conformance/test_power.py feeds the judge NaN and single wrong elements"),
    "B118": ("ninetoothed#199", "a mistake of a reference: tests/oracle/test_enclosure.py holds the oracle to rigorous enclosures"),
    "B119": ("sglang#20389", ""),
    "B120": ("flashinfer#4525", "harmless: the result is right, and attest must not reject it"),
}


def by_kernel() -> dict[str, list[str]]:
    """Kernels by the rows that their `report` names."""
    found: dict[str, list[str]] = {}
    for kernel in kernels(*WRONG):
        for row in re.findall(r"\bB\d+\b", kernel.entry.get("report", "")):
            found.setdefault(row, []).append(kernel.name.replace("_wrong/", " "))
    return found


def by_pitfall() -> dict[str, list[str]]:
    """Pitfalls by the rows that have their citation among the reports."""
    citations = {pitfall.name: pitfall.citation for method in METHODS for pitfall in pitfalls_for(method)}
    found: dict[str, list[str]] = {}
    for row, (reports, _) in ROWS.items():
        own = {report.partition(" (")[0].lower() for report in reports.split(", ")}
        found[row] = [name for name, citation in citations.items() if citation.rpartition("/")[2].lower() in own]
    return found


def status(row: str, covered: dict[str, list[str]]) -> str:
    """covered, or the reason in a word or two."""
    reason = ROWS[row][1]
    same = re.fullmatch(r"as (B\d+)", reason)
    return "re-created" if covered[row] or (same and covered[same[1]]) else reason.partition(";")[0].partition(":")[0]


@click.command(help=(__doc__ or "").replace("\n    python", "\n\n\b\n    python"))
@click.option("--output", default=str(ROOT / "docs" / "bugs.md"), show_default=True)
def main(output: str) -> None:
    from_kernels, from_pitfalls = by_kernel(), by_pitfall()
    covered = {row: from_kernels.get(row, []) + from_pitfalls[row] for row in ROWS}
    for row, (_, reason) in ROWS.items():
        if bool(reason) == bool(covered[row]):
            raise click.ClickException(f"{row} is covered by {covered[row]}, reason={reason!r}, but should have one of the two")
    counts = Counter(status(row, covered) for row in ROWS)
    lines = []
    for row, (reports, reason) in ROWS.items():
        how = "; ".join(part for part in (
            ", ".join(f"`{name}`" for name in from_kernels.get(row, [])),
            "pitfalls " + ", ".join(f"`{name}`" for name in from_pitfalls[row]) if from_pitfalls[row] else "",
        ) if part)  # fmt: skip
        lines.append(f"| {row} | {reports} | {how or reason} |")
    summary = "\n".join(f"| {what} | {count} |" for what, count in counts.most_common())
    text = PAGE.format(rows=len(ROWS), done=counts["re-created"], summary=summary, table="\n".join(lines))
    Path(output).write_text(text, encoding="utf-8")


PAGE = """\
# Reported mistakes, and which of them attest is tested against

Written by `python tests/studies/bugs.py`. Of the {rows} rows of the project's list of public reports, {done} are re-created: as
pitfalls, or as wrong kernels of the corpus (`tests/mutants/numpy_wrong` and `torch_wrong`, code of our own, refuted with the default
settings and seeds 0, 1 and 2). Where a report is about lengths that no test can afford, the kernel is a small model of it: an offset
that wraps at 16 bits instead of 32. Some kernels carry a mistake over from the place where it was reported (a backward pass, a paged
cache, routing) to the forward pass of attention, where the same slip is as easy to make. The report of B14 leaves its cause open: its
kernels re-create what it shows.

| | rows |
|---|---:|
{summary}

| row | reports | re-created in, or why not yet |
|---|---|---|
{table}
"""


if __name__ == "__main__":
    main()
