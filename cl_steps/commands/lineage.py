"""`retain lineage`: what made a version, as a tree in the terminal, a page, or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from cl_steps.commands.wording import NONE, moment, short_value, write_page
from cl_steps.data.quarantine import printable
from cl_steps.documents import Document, Json
from cl_steps.report.lineage_page import render
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import reading
from cl_steps.trace import tree

COLUMNS = 118
SHORT = 16
"""Digits of a digest in the terminal; JSON and the page hold all."""


@dataclass(frozen=True)
class Node:
    """A line of the tree, and those under it."""

    label: str
    text: str = ""
    under: tuple[Node, ...] = ()


def lineage(version: str, dir: str, html: str | None, json: bool) -> Document | str:
    """What made a version; with `html` as a page in that file, too.

    Raises:
        UsageError: there is no such version, or the page cannot be written.
        Unavailable: the Git remote cannot be reached.
    """
    with reading(resolve(dir).git) as main:
        found = tree.lineage(main, version)
    if html:
        write_page(html, render(found))
    return found if json else "\n".join([_title(found), *drawn(nodes(found))])


def drawn(found: Sequence[Node], indent: str = "") -> Iterator[str]:
    """The lines of a tree; labels of one level are aligned, and long texts go on below themselves."""
    width = max((len(printable(node.label)) for node in found), default=0)
    for place, node in enumerate(found):
        last = place == len(found) - 1
        below = indent + ("   " if last else "│  ")
        margin = len(below) + width + 2
        lines = wrap(printable(node.text), max(COLUMNS - margin, 40)) or [""]
        yield f"{indent}{'└─' if last else '├─'} {printable(node.label):<{width}}  {lines[0]}".rstrip()
        yield from (f"{below}{'│' if node.under else ' '}{' ' * (margin - len(below) - 1)}{line}" for line in lines[1:])
        yield from drawn(node.under, below)


def nodes(found: Document) -> tuple[Node, ...]:
    """The tree of a lineage document."""
    return (
        Node("parents", " <- ".join(_few(found["chain"])) or "none: the base as it came"),
        *_children(found),
        Node("base", _base(found)),
        _data(found["data"]),
        _replay(found["replay"]),
        _teacher(found["teacher"]),
        Node("extractor", _short(found["extractor"])),
        Node("adapter", _short(found["adapter"])),
        _software(found),
        _parameters(found),
        Node("seeds", _pairs(found["seeds"])),
        Node("trigger", _trigger(found["trigger"])),
        Node("approval", _approval(found["approval"])),
        Node("judges", judges_text(found["judges"])),
        _checks(found["checks"]),
        Node("overrides", "" if found["overrides"] else "none", tuple(Node(text) for text in found["overrides"])),
        Node("cost", _cost(found["cost"])),
        Node("signatures", _signatures(found["signatures"])),
        Node("events", "" if found["events"] else "none touches it", tuple(_event(e) for e in found["events"])),
    )


def event_text(event: Json) -> str:
    """A rollback, a rebase or a withdrawal in one sentence."""
    who = f"{event['by']} on {moment(event['at'])}: {event['reason']}"
    if event["kind"] == "rollback":
        left = ", ".join(event["left"]) or "none"
        return f"from {event['from']} back to {event['to']}, leaving {left}; {who}"
    if event["kind"] == "rebase":
        return f"from base {_short(event['before'])} to {_short(event['after'])}; {who}"
    erased = ", bytes erased" if event["erase"] else ""
    return f"{event['assets']} asset{'s' if event['assets'] != 1 else ''}{erased}; {who}"


def _title(found: Document) -> str:
    mark = ", the champion" if found["version"] == found["champion"] else f" (the champion is {found['champion']})"
    return printable(f"{found['version']}{mark}, made {moment(found['created'])} by run {found['run'] or NONE}")


def _children(found: Document) -> Iterable[Node]:
    return [Node("children", ", ".join(found["children"]))] if found["children"] else []


def _base(found: Document) -> str:
    """The base, and the one that it took the place of where it is new."""
    new = f", in place of {_short(found['rebase']['before'])}" if found["rebase"] else ""
    return f"{_short(found['base'])}{new}"


def _data(data: Json | None) -> Node:
    if data is None:
        return Node("data", "none of its own")
    assets = f"{_count(data['assets'])} assets, {_count(data['learnt'])} learnt, content {_short(data['digest'])}"
    slices = tuple(Node(name, _splits(splits)) for name, splits in data["slices"].items())
    intakes = tuple(Node(intake["run"], _intake(intake)) for intake in data["intakes"])
    return Node("data", assets, (Node("slices", "", slices), Node("intakes", "", intakes)))


def _splits(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in splits.items() if count)


def _intake(intake: Json) -> str:
    counts = f"{_count(intake['assets'])} assets, {_count(intake['quarantined'])} quarantined"
    return f"{counts}, {moment(intake['at'])}"


def _replay(replay: Json) -> Node:
    trained = f"trained with {_count(replay['examples'])} of {_short(replay['from'])}, " if replay["from"] else ""
    return Node("replay", f"{trained}left {_short(replay['next'])}")


def _teacher(teacher: Json | None) -> Node:
    if teacher is None:
        return Node("teacher", NONE)
    if not teacher["distilled"]:
        return Node("teacher", "none: the method distils nothing")
    note = "" if teacher["is_the_parent"] else ", not as that version's record says it"
    return Node("teacher", f"{teacher['version']}, adapter {_short(teacher['adapter'])}{note}")


def _software(found: Document) -> Node:
    libraries = ", ".join(f"{name} {value}" for name, value in found["libraries"].items())
    return Node(
        "made with",
        f"code {_short(found['code'])}",
        (
            Node("image", found["image"] or "none"),
            Node("libraries", libraries or NONE),
            Node("devices", ", ".join(found["devices"])),
            Node("machine", f"Python {found['python'] or NONE} on {found['machine'] or NONE}"),
        ),
    )


def _parameters(found: Document) -> Node:
    odd = found["parameters"]
    rows = tuple(Node(key, _against(each["value"], each["default"])) for key, each in odd.items())
    return Node("parameters", f"{len(odd)} differ from the defaults" if odd else "the defaults", rows)


def _against(value: Any, default: Any) -> str:
    return f"{short_value(value)} (default {short_value(default)})"


def _checks(checks: Json) -> Node:
    gate, drift = checks["gate"], checks["drift"]
    if not (gate["verdict"] or drift["verdict"]):
        return Node("checks", "none: the base as it came")
    rows = tuple(Node(f"{c['slice']} {c['metric']}", check_text(c)) for c in gate["checks"])
    return Node("checks", "", (Node("drift", _verdict(drift)), Node("gate", _verdict(gate), rows)))


def _verdict(judged: Json) -> str:
    verdict, why = str(judged["verdict"] or NONE), str(judged["why"] or NONE)
    return why if why.startswith(verdict) else f"{verdict}: {why}"


def check_text(check: Json) -> str:
    """A check of the gate with its figures, in its metric's own unit."""
    figures = (
        f"{check[key]:.4g}" if isinstance(check[key], int | float) else NONE for key in ("estimate", "lower", "upper")
    )
    estimate, lower, upper = figures
    asked = "gain above" if check["kind"] == "superiority" else "harm below"
    return f"{check['verdict']}: {estimate} [{lower}, {upper}] against {check['against']}, {asked} {check['margin']}"


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else NONE


def _event(event: Json) -> Node:
    return Node(event["kind"], event_text(event))


def _trigger(trigger: Json) -> str:
    by = f" by {trigger['by']}" if trigger.get("by") else ""
    forced = ", forced" if trigger.get("force") else ""
    return f"{trigger.get('kind') or NONE}{by}{forced}" + (f": {trigger['reason']}" if trigger.get("reason") else "")


def _approval(approval: Json | None) -> str:
    if not approval:
        return "by the gate alone"
    comment = approval.get("reason") or approval.get("comment") or "no comment"
    return f"{approval.get('answer')} by {approval.get('by')} on {moment(approval.get('at'))}: {comment}"


def judges_text(judges: Json) -> str:
    """Who vouches for the figures and the verdict, and in whose hands the keys were."""
    custody = {"one person": "one person had all keys", "separate": "the judge's key lay apart from the one that signs"}
    signed = f"{' and '.join(judges['signed'])} signed with the judge's key" if judges["signed"] else "nobody signed"
    return f"{signed}; {custody.get(judges['custody'], 'the line had no keys')}"


def _cost(cost: Json) -> str:
    if cost["seconds"] is None:
        return NONE
    steps = ", ".join(f"{name} {spent['seconds']:.0f} s" for name, spent in (cost["steps"] or {}).items())
    return f"{cost['seconds']:.0f} s, {cost['gpu_seconds'] or 0:.0f} GPU-seconds" + (f" ({steps})" if steps else "")


def _signatures(signatures: Mapping[str, bool]) -> str:
    there = [name for name, present in signatures.items() if present]
    return f"{' and '.join(there)}: present, not checked here (`retain verify`)" if there else "unsigned"


def _few(names: Sequence[str]) -> list[str]:
    return list(names) if len(names) <= 8 else [*names[:5], f"... {len(names) - 6} more ...", names[-1]]


def _pairs(values: Json) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None) or NONE


def _short(digest: object) -> str:
    return str(digest)[:SHORT] if digest else NONE


def _count(value: object) -> str:
    return NONE if value is None else str(value)
