"""Scripts of operations on a cache: how they are drawn, which are simpler, and a few that differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from oracle.operations import COUNTING, MOST_ASKED, VERBS, Operation, join_operations, parse_operations, possible, rows

__all__ = ["OTHER_SCRIPTS", "draw_script", "possibilities", "script_counts", "script_flags", "simpler_scripts"]

Choose = Callable[[Sequence[Any]], Any]

# Requests that are there at the same time, and operations, at most.
REQUESTS, LONGEST = 5, 14

# Numbers of requests, where not always the smallest is taken: they may be any, and come again. Some are one in 8 or 16 bits.
NUMBERS = (0, 5, 2, 1, 8, 3, 100, 259, 65541)

# Queries times tokens times heads: what the oracle multiplies.
ELEMENTS = 50_000

# Few scripts begin with a prompt of more pages than a byte can number, of at most so many tokens, and of so many numbers.
BYTE, LONGEST_PROMPT, LONG_ELEMENTS = 256, 5000, 300_000

# Which operations a script has besides the ones that every cache has. Few kinds at a time show which is the matter.
KINDS: tuple[tuple[str, ...], ...] = (
    (), ("fork",), ("swap",), ("preempt",), ("fork", "swap", "preempt"), ("fork", "swap"), ("fork", "preempt"), (),
)  # fmt: skip
OF_KIND = {"fork": ("fork",), "swap": ("swap_out", "swap_in"), "preempt": ("preempt", "resume")}

OTHER_SCRIPTS = (
    "join(0,2);grow(0,1)",
    "join(0,1)",
    "join(0,3);join(1,2);grow(0,1);finish(0);grow(1,1)",
    "join(0,3);fork(0,1);grow(0,1);grow(1,1)",
    "join(0,3);swap_out(0);swap_in(0);grow(0,1)",
    "join(0,3);preempt(0);resume(0);grow(0,1)",
)


# What a sentence calls what happens in a script.
HAPPENS = {
    "grow": "a request grows", "fork": "a request is forked", "preempt": "a request is preempted", "resume": "a request is resumed",
    "swap_out": "a request is swapped out", "swap_in": "a request is swapped in", "finish": "a request finishes",
}  # fmt: skip


def script_flags(text: str) -> Iterator[tuple[str, str, str]]:
    """What is true of a script: as a sentence says it and its contrary, and as a condition, where it can be one."""
    operations = parse_operations(text)
    for verb, happens in HAPPENS.items():
        if any(one.verb == verb for one in operations):
            yield happens, f"no {happens.removeprefix('a ')}", f"'{verb}' in operations"
    if any(one.verb == "grow" and one.number != 1 for one in operations):
        yield "a request grows by several tokens at once", "requests grow by one token at a time", ""
    if len({row.request for row in rows(text)}) > 1:
        yield "there are several requests", "there is one request", ""
    joined = [one.number if one.verb == "fork" else one.request for one in operations if one.verb in ("join", "fork")]
    if len(joined) > len(set(joined)):
        yield "the number of a request is used again", "no number of a request is used again", ""


def script_counts(text: str, block_size: int | None) -> dict[str, int]:
    """Whole numbers that tell something of a script, in words."""
    longest = max(len(row.tokens) for row in rows(text))
    counts = {"number of operations": len(parse_operations(text)), "tokens of the longest request": longest}
    return counts if block_size is None else {**counts, "pages of the longest request": -(-longest // block_size)}


def possibilities(states: Mapping[int, str], verbs: Sequence[str], number: int) -> list[tuple[str, int]]:
    """The operations that are possible, each with its request, for a new one the given number; what else some need is not decided."""
    found = [("join", number)] if len(states) < REQUESTS else []
    for verb in (verb for verb in verbs if verb != "join"):
        if verb != "fork" or len(states) < REQUESTS:
            found += [(verb, request) for request, state in states.items() if state in VERBS[verb][0]]
    return found


def draw_script(choose: Choose, dims: Mapping[str, int], tile: int) -> str:
    """A script whose numbers of tokens are aimed at the edges of pages of a size."""
    heads = max(dims.get("h", 1), 1)
    kinds = choose(KINDS)
    verbs = ("join", "grow", "grow", *(verb for kind in kinds for verb in OF_KIND[kind] * 2), "finish")
    numbers = choose((range(REQUESTS + 1), range(REQUESTS + 1), NUMBERS))
    prompt = _long_prompt(choose, dims, tile)
    limit = LONG_ELEMENTS if prompt else ELEMENTS
    operations: list[Operation] = []
    states: dict[int, str] = {}
    tokens = asked = 0
    for _ in range(max(choose(range(2, LONGEST + 1)), choose(range(2, LONGEST + 1)))):
        new = _new(choose, numbers, states)
        verb, request = choose(possibilities(states, verbs, new))
        count = prompt if prompt and not operations else _number(choose, verb, tile)
        made = Operation(verb, request, new if verb == "fork" else count)
        fed = made.number if made.number is not None and verb in COUNTING else 0
        more = (fed if fed <= MOST_ASKED else 1) + sum(state == "resident" for state in states.values())
        if operations and (tokens + fed) * (asked + more) * heads > limit:
            continue
        operations.append(made)
        tokens, asked = tokens + fed, asked + more
        _follow(made, states)
    return join_operations(operations)


def _new(choose: Choose, numbers: Sequence[int], states: Mapping[int, str]) -> int:
    """The number of a new request: the smallest, which may have been another's, or any."""
    absent = [number for number in numbers if number not in states]
    return absent[0] if isinstance(numbers, range) else choose(absent)


def _long_prompt(choose: Choose, dims: Mapping[str, int], tile: int) -> int:
    """Tokens of a prompt that fills more pages than a byte can number, and whose last token alone asks; 0 in most scripts."""
    tokens = min(max((BYTE + 1) * tile + 1, MOST_ASKED + 1), LONGEST_PROMPT)
    numbers = tokens * max(dims.get(heads, 1) * dims.get(width, 1) for heads, width in ("hd", "gd", "ge"))
    return tokens if choose((False,) * 11 + (True,)) and numbers <= LONG_ELEMENTS else 0


def _number(choose: Choose, verb: str, tile: int) -> int | None:
    if verb == "grow":
        return max(1, choose((1, 1, 1, 2, 3, 1, tile - 1, tile, tile + 1)))
    if verb != "join":
        return None
    return max(1, choose((tile - 1, tile, tile + 1, 1, 2, 3, 5, 2 * tile - 1, 2 * tile, 2 * tile + 1, tile // 2 + 1)))


def _follow(operation: Operation, states: dict[int, str]) -> None:
    if operation.verb == "finish":
        del states[operation.request]
        return
    states[operation.request] = VERBS[operation.verb][1]
    if operation.verb == "fork":
        assert operation.number is not None, "a fork names the copy"
        states[operation.number] = "resident"


def simpler_scripts(text: str) -> list[str]:
    """Scripts one step simpler, the boldest first: without a request, without some operations, with fewer tokens."""
    operations = parse_operations(text)
    found = [possible(candidate) for candidate in _simpler(operations)]
    return [join_operations(candidate) for candidate in dict.fromkeys(found) if candidate and candidate != operations]


def _simpler(operations: tuple[Operation, ...]) -> Iterator[tuple[Operation, ...]]:
    count = len(operations)
    yield operations[: count // 2]
    for request in {operation.request for operation in operations}:
        yield tuple(one for one in operations if one.request != request)
    for size in (4, 2):  # a swap or a preemption and what undoes it, with what is between them
        yield from (operations[:start] + operations[start + size :] for start in range(count - size + 1))
    yield from (operations[:index] + operations[index + 1 :] for index in reversed(range(count)))
    for index, one in enumerate(operations):
        if one.verb == "fork":  # the copy never comes: what happened to it happens to the request itself
            yield (*operations[:index], *(_renamed(later, {one.number: one.request}) for later in operations[index + 1 :]))
    for first in range(count):
        for second in range(first + 2, count):
            if operations[first].request == operations[second].request:
                yield (*operations[:first], *operations[first + 1 : second], *operations[second + 1 :])
    for index, one in enumerate(operations):
        if one.verb in COUNTING and one.number is not None:
            parts = [one.number - one.number // part for part in (8, 64)]  # a thousand tokens are not taken away one by one
            for fewer in dict.fromkeys((1, 2, 3, one.number // 2, *parts, one.number - 1)):
                if 0 < fewer < one.number:
                    yield (*operations[:index], replace(one, number=fewer), *operations[index + 1 :])
    named = dict.fromkeys(number for one in operations for number in (one.request, one.number if one.verb == "fork" else one.request))
    yield tuple(_renamed(one, {request: number for number, request in enumerate(named)}) for one in operations)


def _renamed(operation: Operation, names: Mapping[int | None, int]) -> Operation:
    """An operation on requests of other numbers."""
    request, number = names.get(operation.request, operation.request), operation.number
    return replace(operation, request=request, number=names.get(number, number) if operation.verb == "fork" else number)
