"""`retain diff`: what changed from one version to another, in the terminal, as a page with pictures, or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cl_steps.commands.wording import NONE, short_value, write_page
from cl_steps.data.manifests import reading_store
from cl_steps.data.quarantine import printable
from cl_steps.documents import Document, Json
from cl_steps.report.diff_page import render
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import reading
from cl_steps.trace.changes import changes
from cl_steps.trace.pictures import sample_files

SOFTWARE = ("code", "image", "python", "devices", "machine")


def diff(old: str, new: str, dir: str, html: str | None, json: bool) -> Document | str:
    """What changed; with `html` as a page with pictures in that file, too.

    Raises:
        UsageError: there is no such version, or the page cannot be written.
        IntegrityError: an object of the store is not what its name says.
        Unavailable: a remote cannot be reached.
    """
    line = resolve(dir)
    with reading(line.git) as main, reading_store(line.store, main.ledger().replaced) as manifests:
        found = changes(main, manifests, old, new)
        if html:
            folders, note = sample_files(main, manifests, old, new)
            write_page(html, render(found, folders, note))
    return found if json else "\n".join(_text(found))


def _text(found: Document) -> Iterator[str]:
    yield printable(f"{found['old']} -> {found['new']}: {found['relation']}")
    if not found["base"]["same"]:
        yield printable(f"the base changed: {short_value(found['base']['old'])} -> {short_value(found['base']['new'])}")
    for title, lines in (
        ("data", _data(found["data"])),
        ("parameters", _changed(found["parameters"])),
        ("made with", _software(found)),
        ("metrics", _metrics(found)),
    ):
        yield ""
        yield title
        yield from (f"  {printable(line)}".rstrip() for line in lines)


def _data(data: Json) -> Iterator[str]:
    slices = data["slices"]
    yield f"learnt between   {_counted(data['learnt'])}"
    yield from _examples(data["learnt"])
    if data["no_longer"]["assets"]:
        yield f"not learnt in it {_counted(data['no_longer'])}"
        yield from _examples(data["no_longer"])
    for name in ("replay", "evaluation"):
        moved = data[name]
        yield f"{name:<16} {moved['old']} -> {moved['new']} images"
        for way, label in (("in", "came in"), ("out", "went out")):
            if moved[way]["assets"]:
                yield f"  {label:<14} {_counted(moved[way])}"
    yield f"slices           {_signed(slices['added'], '+')}{_signed(slices['removed'], '-')}".rstrip() or NONE
    if data["not_in_the_store"]:
        yield f"not in the store any more, and so not counted: {', '.join(data['not_in_the_store'])}"


def _counted(found: Json) -> str:
    slices = ", ".join(f"{name} {count}" for name, count in found["slices"].items())
    return f"{found['assets']} images" + (f" ({slices})" if slices else "")


def _examples(found: Json) -> Iterator[str]:
    for row in found["examples"]:
        yield f"  {row['sha256'][:12]}  {_cut(row['text'], 60)}"


def _signed(names: Sequence[str], sign: str) -> str:
    return "".join(f"{sign}{name} " for name in names)


def _changed(rows: Sequence[Json]) -> Iterable[str]:
    if not rows:
        return ["the same"]
    width = max(len(row["key"]) for row in rows)
    return [f"{row['key']:<{width}}  {short_value(row['old'])} -> {short_value(row['new'])}" for row in rows]


def _software(found: Document) -> Iterable[str]:
    rows = [{"key": key, **found[key]} for key in SOFTWARE if not found[key]["same"]]
    return _changed([*rows, *found["libraries"]])


def _metrics(found: Document) -> Iterator[str]:
    rows = found["metrics"]
    if not rows:
        yield "none: neither was measured"
        return
    yield (
        "both measured on the same images, prompts and seeds"
        if found["paired"]
        else "each measured in its own night, on its own prompts and seeds: small differences say little"
    )
    width = max(len(str(row["slice"])) for row in rows)
    for row in rows:
        apart = NONE if row["difference"] is None else f"{row['difference']:+.4f}"
        yield f"{row['slice']:<{width}}  {row['metric']:<10} {_figure(row['old'])} -> {_figure(row['new'])}  {apart:>9}"


def _figure(value: object) -> str:
    return f"{value:9.4f}" if isinstance(value, int | float) else f"{NONE:>9}"


def _cut(words: str, letters: int) -> str:
    return words if len(words) <= letters else f"{words[: letters - 3]}..."
