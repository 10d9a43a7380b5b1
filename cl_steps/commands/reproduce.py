"""`retain reproduce`: make a version again and compare, or play the line again as if an image had never arrived."""

from __future__ import annotations

from typing import Any

from cl_steps.documents import Document, Json
from cl_steps.errors import FaultsFound
from cl_steps.operations import reproduce as reproducing
from cl_steps.operations.replay import replay
from cl_steps.operations.reproduce import TOLERANCE
from cl_steps.repository.line import resolve


def reproduce(
    version: str, start: str | None, without: list[str], to: str | None, dir: str, json: bool
) -> Document | str:
    """Make `version` again and compare; or, with `start` and `without`, play the line again from that version on.

    Raises:
        UsageError: there is no such version, it is v1, or the folder is taken.
        FaultsFound: what was made differs; the sentence names what, and which inputs differ.
        IntegrityError: what the version was made from is missing or corrupt.
    """
    line = resolve(dir)
    if start or without:
        played = replay(line, start, without, to)
        return played if json else _replay_text(played, played["folder"])
    found = reproducing.reproduce(line, version, to)
    sentence = _again_text(found)
    if not found["equal"] and not found["within_tolerance"]:
        raise FaultsFound(sentence, found if json else "")
    return found if json else sentence


def _again_text(found: Document) -> str:
    """The comparison in one sentence."""
    if found["equal"]:
        return f"{found['version']} was made again: all {len(found['outputs'])} outputs are equal, bit for bit"
    changed = ", ".join(output["path"] for output in found["outputs"] if output["then"] != output["now"])
    distance = f"the adapters differ by {found['adapter_distance']:.2g} of their length"
    if found["within_tolerance"]:
        return f"{found['version']} was made again within tolerance: {distance} (at most {TOLERANCE:g} on GPUs)"
    inputs = ", ".join(f"{item['what']} ({_short(item['then'])} then, {_short(item['now'])} now)" for item in
                       found["inputs_that_differ"])  # fmt: skip
    reason = f"inputs that differ: {inputs}" if inputs else "no input differs, so that something is not deterministic"
    return f"{found['version']} could not be made again: {changed} differ ({distance}); {reason}"


def _replay_text(document: Json, folder: str) -> str:
    """Run by run and slice by slice: then, and now."""
    rows = [f"  {row['run']:<22} {row['then']:<22} {row['now']}" for row in document["runs"]]
    champion, slices = document["champion"], document["slices"]
    lines = [f"{'run':<24} {'then':<22} now", *rows, "", f"champion: {champion['then']} then, {champion['now']} now"]
    for name, metrics in slices.items():
        cells = ", ".join(f"{metric} {_shown(then)} -> {_shown(now)}" for metric, (then, now) in metrics.items())
        lines.append(f"  {name}: {cells}")
    return "\n".join([*lines, f"the new line is in {folder}; `retain publish` moves it to shared remotes"])


def _short(value: Any) -> str:
    return str(value)[:12] or "none"


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"
