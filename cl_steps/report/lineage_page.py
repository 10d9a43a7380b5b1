"""The page of `retain lineage`: the graph of what made a version, the line around it, and every fact of its record.

The document comes from `cl_steps.trace.tree`; all of its texts may be hostile and are escaped by the template.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cl_steps.documents import Json
from cl_steps.report.graph import Graph, made_graph
from cl_steps.report.overview import legible_json, number, table, text
from cl_steps.report.page import environment
from cl_steps.report.timeline import Timeline, timeline
from cl_steps.report.words import DASH, Grid, Pill, moment, pill, seconds, whole
from cl_steps.stats.decision import amount

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LineageView:
    """The page, nothing left to decide for the template."""

    version: str
    champion: str
    summary: str
    facts: tuple[tuple[str, str, str], ...]
    graph: Graph
    timeline: Timeline
    batch: Grid | None
    intakes: Grid | None
    drift_why: str
    gate_why: str
    checks: Grid | None
    answers: Facts
    overrides: tuple[str, ...]
    events: Grid | None
    parameters: Grid | None
    making: Facts
    digests: Facts
    document: str


def render(document: Json) -> str:
    """The page as HTML; the same document gives the same page."""
    return environment().get_template("lineage.html.j2").render(page=view(document))


def view(document: Json) -> LineageView:
    """The page of a lineage document."""
    checks = table(document["checks"])
    drift, gate = table(checks.get("drift")), table(checks.get("gate"))
    return LineageView(
        version=text(document["version"]),
        champion=text(document["champion"]) or DASH,
        summary=_summary(document),
        facts=_facts(document, gate),
        graph=made_graph(document),
        timeline=timeline(document),
        batch=_batch(document),
        intakes=_intakes(document),
        drift_why=text(drift.get("why")),
        gate_why=text(gate.get("why")),
        checks=_checks(gate.get("checks") or ()),
        answers=_answers(document),
        overrides=tuple(text(sentence) for sentence in document["overrides"]),
        events=events_grid(document["events"]),
        parameters=_parameters(document),
        making=_making(document),
        digests=_digests(document),
        document=legible_json(document),
    )


def events_grid(events: Sequence[Json]) -> Grid | None:
    """Rollbacks, rebases and withdrawals, who did them and why."""
    lines = [
        (moment(e.get("at")), text(e.get("kind")), _did(e), text(e.get("by")), text(e.get("reason")), text(e.get("id")))
        for e in events
    ]
    return Grid(("when", "what", "", "by", "why", "event"), tuple(lines)) if lines else None


def _did(event: Json) -> str:
    if event.get("kind") == "rollback":
        left = ", ".join(map(text, event.get("left") or ()))
        return f"{text(event.get('from'))} to {text(event.get('to'))}, left: {left or 'none'}"
    if event.get("kind") == "rebase":
        return f"base {text(event.get('before'))[:10]} to {text(event.get('after'))[:10]}"
    return f"assets: {whole(event.get('assets'))}{', bytes erased' if event.get('erase') else ''}"


def _summary(document: Json) -> str:
    parents = [text(name) for name in document["chain"]]
    made = f"made {moment(document['created'])}" + (f" by run {text(document['run'])}" if document["run"] else "")
    line = f", {len(parents)} versions after the base" if len(parents) > 1 else ""
    return f"{made}{line}"


def _facts(document: Json, gate: Json) -> tuple[tuple[str, str, str], ...]:
    data, cost, champion = table(document["data"]), table(document["cost"]), text(document["champion"])
    slices = ", ".join(text(name) for name in list(table(data.get("slices")))[:4])
    standing = "the champion" if document["version"] == champion else f"today's champion is {champion}"
    judged = text(gate.get("verdict"))
    spent = f"{whole(cost.get('gpu_seconds') or 0)} GPU-seconds"
    return (
        ("Version", text(document["version"]), standing),
        (
            "Images in the batch",
            whole(data.get("assets")),
            slices or ("a new base" if document.get("rebase") else "the base as it came"),
        ),
        ("Gate", judged or DASH, _approved(table(document["approval"])) if judged else "v1 is never judged"),
        ("Time", seconds(cost.get("seconds")), spent),
    )


def _approved(approval: Json) -> str:
    return f"and {text(approval.get('by'))} said {text(approval.get('answer'))}" if approval else "by the gate alone"


def _batch(document: Json) -> Grid | None:
    splits = ("train", "probe", "evaluation")
    slices = table(table(document["data"]).get("slices"))
    lines = [(text(name), *(whole(table(found).get(split, 0)) for split in splits)) for name, found in slices.items()]
    return Grid(("slice", *splits), tuple(lines), (1, 2, 3)) if lines else None


def _intakes(document: Json) -> Grid | None:
    lines = [
        (text(i.get("run")), moment(i.get("at")), whole(i.get("assets")), whole(i.get("quarantined")))
        for i in table(document["data"]).get("intakes") or ()
    ]
    return Grid(("run", "when", "assets", "quarantined"), tuple(lines), (2, 3)) if lines else None


def _checks(checks: Sequence[Json]) -> Grid | None:
    lines = [tuple(_check(check)) for check in checks]
    headings = ("slice", "metric", "against", "of", "estimate", "bounds", "asked for", "verdict", "")
    return Grid(headings, tuple(lines), (4, 5, 6)) if lines else None


def _check(check: Json) -> Iterator[str | Pill]:
    metric, gain = text(check.get("metric")), check.get("kind") == "superiority"
    figures = (number(check.get(key)) for key in ("estimate", "lower", "upper", "margin"))
    estimate, lower, upper, margin = (DASH if f is None else amount(metric, f) for f in figures)
    yield from (text(check.get("slice")), metric, text(check.get("against")), "gain" if gain else "harm", estimate)
    yield from (f"{lower} … {upper}", f"{'more' if gain else 'less'} than {margin}", pill(text(check.get("verdict"))))
    yield text(check.get("note"))


def _answers(document: Json) -> Facts:
    """Who or what started it, and who agreed to it."""
    trigger, approval = table(document["trigger"]), table(document["approval"])
    by = f"{text(trigger.get('kind'))} {text(trigger.get('by'))}".strip()
    forced = "yes" if trigger.get("force") else "no"
    started = {"started by": by, "reason": text(trigger.get("reason")), "drift forced": forced}
    said = {f"approval, {text(key)}": text(value) for key, value in approval.items()} or {"approval": "none was asked"}
    judges = table(document.get("judges"))
    signed = judges.get("signed")
    said["signed by the judge"] = ", ".join(map(text, signed)) if isinstance(signed, list) else ""
    said["keys in the hands of"] = text(judges.get("custody"))
    return tuple((key, value or DASH) for key, value in {**started, **said}.items())


def _parameters(document: Json) -> Grid | None:
    lines = [
        (text(key), text(table(value).get("value")), text(table(value).get("default")) or DASH)
        for key, value in table(document["parameters"]).items()
    ]
    return Grid(("parameter", "value", "default"), tuple(lines)) if lines else None


def _making(document: Json) -> Facts:
    libraries = ", ".join(f"{text(k)} {text(v)}" for k, v in table(document["libraries"]).items())
    seeds = ", ".join(f"{text(k)} {text(v)}" for k, v in table(document["seeds"]).items() if v is not None)
    facts = {
        "code": document["code"],
        "image": document["image"],
        "Python": document["python"],
        "libraries": libraries,
        "devices": ", ".join(map(text, document["devices"])),
        "machine": document["machine"],
        "seeds": seeds,
        "commit before it": document.get("main"),
        "signatures": ", ".join(text(k) for k, v in table(document["signatures"]).items() if v) or "unsigned",
    }
    return tuple((key, text(value) or DASH) for key, value in facts.items())


def _digests(document: Json) -> Facts:
    data, replay, teacher = (table(document[key]) for key in ("data", "replay", "teacher"))
    facts = {
        "base": document["base"],
        "base before": table(document["rebase"]).get("before"),
        "extractor": document["extractor"],
        "batch, contents": data.get("digest"),
        "batch, as stored": data.get("md5"),
        "teacher's adapter": teacher.get("adapter"),
        "replay, trained with": replay.get("from"),
        "replay, afterwards": replay.get("next"),
        "adapter": document["adapter"],
    }
    return tuple((key, text(value) or DASH) for key, value in facts.items())
