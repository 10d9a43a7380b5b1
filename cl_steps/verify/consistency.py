"""Whether a version's record agrees with itself and with the state it says it was made from. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cl_steps.ledger.record import Record
from cl_steps.pipeline import next_state
from cl_steps.run.stage import plain
from cl_steps.store.pointers import lock_outs, read_dvc_file

FIXED = {"teacher": "adapter", "base": "base", "extractor": "extractor"}
"""What the record calls the parts of the state that were there before, and where they lie in `state/`; of a rebase its
`base` is the new one.
"""


def state_digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """The md5 of each part of the state, from the `.dvc` files of a `state/` folder.

    Raises:
        ValueError: one of them names no bytes.
    """
    try:
        named = {name.removesuffix(".dvc"): content for name, content in files.items() if name.endswith(".dvc")}
        return {name: str(read_dvc_file(content)["md5"]) for name, content in named.items()}
    except Exception as error:
        raise ValueError("a .dvc file of state/ names no bytes") from error


def next_digests(record: Record) -> dict[str, str]:
    """The md5 of each part of the state from the version on, by its own record."""
    digests = record.digests
    return {"base": digests.base, "extractor": digests.extractor, **digests.state}


def disagreements(record: Record, before: Mapping[str, str]) -> list[str]:
    """Where a record with stages contradicts itself or the state before the version, in words.

    Args:
        record: of version 2 or later, of the right shape.
        before: md5 of each part of the state at the commit that the version's own follows.
    """
    return [*_with_state(record, before), *_with_itself(record)]


def _with_state(record: Record, before: Mapping[str, str]) -> Iterator[str]:
    base = record.rebase.before if record.rebase else record.digests.base
    named = {"teacher": record.digests.teacher, "base": base, "extractor": record.digests.extractor}
    for name, part in FIXED.items():
        if named[name] != before.get(part):
            yield f"its {name} is not state/{part} of main then"
    for step, stage in record.stages.items():
        for dep in stage.get("deps", ()):
            folder, _, part = dep["path"].partition("/")
            if folder == "state" and part in before and dep["md5"] != before[part]:
                yield f"{step} read another {dep['path']} than main's then"


def _with_itself(record: Record) -> Iterator[str]:
    outs = lock_outs(record.stages)
    for step, stage in record.stages.items():
        for dep in stage.get("deps", ()):
            if dep["path"] in outs and dep["md5"] != outs[dep["path"]]["md5"]:
                yield f"{step} read another {dep['path']} than the one that was written"
    yield from _with_parameters(record)
    for part, path in next_state(record.rebase is not None).items():
        if next_digests(record).get(part) != outs.get(path, {}).get("md5"):
            yield f"state/{part} is not the {path} of its stages"


def _with_parameters(record: Record) -> Iterator[str]:
    """Every stage ran with the record's own parameters: by which a candidate was judged, everybody can see on main."""
    said = record.parameters
    for step, stage in record.stages.items():
        used = stage.get("params", {})
        for key, value in used.get("params.yaml", {}).items():
            if plain(value) != plain(said.file.get(key)):
                yield f"{step} ran with another {key} of params.yaml than the record says"
        if "run.yaml" in used and plain(used["run.yaml"].get("set", {})) != plain(said.set):
            yield f"{step} ran with other parameters of the run's own than the record says"
