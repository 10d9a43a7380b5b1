"""`retain migrate`: a workspace of an older release becomes one of today's.

    format       a commit on main for each: what no run of today's code can work with changed its shape
    dvc.yaml     a commit on main: its stages are today's, but for those that the owner wrote or changed
    judge's key  in the folder of the line's keys, for a line of before evaluate and gate signed what they find

What is append-only (records, events) is never rewritten: code reads every schema that was ever written. The last two
are no formats: runs go on with an older `dvc.yaml`, which is for people's own `dvc repro`, and a new format would stop
every line's nights until somebody migrates it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cl_steps.config import FORMAT, check_format
from cl_steps.errors import UsageError
from cl_steps.ledger.events import MigrationEvent
from cl_steps.operations.stages import Renewed, renew, template
from cl_steps.records.builders import act, person
from cl_steps.records.keys import JUDGE, SIGNING, add_judge, read_trusted
from cl_steps.records.signer import event_files
from cl_steps.repository.checkout import refuse_dirty, sync
from cl_steps.repository.line import DEPLOYMENT, Line, resolve
from cl_steps.repository.mainline import Change, Mainline, reading

PARAMS, PIPELINE = "params.yaml", "dvc.yaml"
NUMBER = re.compile(rb"^format:[ \t]*[0-9]+", re.MULTILINE)


@dataclass(frozen=True)
class Migration:
    """From one format to the next: what it does, and the files of main that it changes (None removes one)."""

    summary: str
    files: Callable[[Mainline], Mapping[str, bytes | None]]


MIGRATIONS: tuple[Migration, ...] = ()
"""The first leads from format 1 to 2, the next from 2 to 3, and so on up to `config.FORMAT`."""


def migrate(dir: str) -> str:
    """Bring the workspace's main, the checkout in `dir` and the line's keys up to today's; again: nothing.

    Raises:
        UsageError: the workspace is of a newer format than this code's, its checkout holds changes of its own, or the
            line needs a judge's key and its keys are not here.
        Unavailable: the Git remote cannot be reached or does not take the change.
    """
    assert len(MIGRATIONS) == FORMAT - 1, "a format has its migration"
    line = resolve(dir)
    refuse_dirty(Path(dir), line)
    with reading(line.git) as main:
        before = _format(main)
        for target in range(before + 1, FORMAT + 1):
            main.swap(partial(_change, line, main, target))
        stages = _stages(main)
        main.swap(lambda: _restage(main))
    sync(Path(dir), line)
    done = [*_formats(dir, before), *_replaced(stages), *_add_judge(Path(dir), line)]
    said = done or [f"{dir} is of format {FORMAT}, today's: there is nothing to migrate"]
    return ". ".join([*said, *_left(stages)])


def _formats(dir: str, before: int) -> list[str]:
    if before == FORMAT:
        return []
    done = "; ".join(migration.summary for migration in MIGRATIONS[before - 1 :])
    return [f"{dir} is of format {FORMAT} now, and was of {before}: {done}. Runs under way must begin anew"]


def _restage(main: Mainline) -> Change | None:
    """The commit that brings today's stages; None where there is nothing to do, or somebody else did it meanwhile."""
    stages = _stages(main)
    return Change({PIPELINE: stages.content}, f"{'; '.join(_replaced(stages))}\n") if stages.replaced else None


def _stages(main: Mainline) -> Renewed:
    return renew(main.read(PIPELINE) or b"", template(PIPELINE).read_bytes())


def _replaced(stages: Renewed) -> list[str]:
    return [f"{PIPELINE} has today's {_named(stages.replaced)}"] if stages.replaced else []


def _left(stages: Renewed) -> list[str]:
    """What is said each time: the owner's own words stay, and only the owner knows what was meant."""
    if not stages.own:
        return []
    return [
        f"{PIPELINE} has {_named(stages.own)} not as it was shipped, and that stays: compare it with "
        f"{template(PIPELINE)}"
    ]


def _named(stages: Sequence[str]) -> str:
    return f"{'stage' if len(stages) == 1 else 'stages'} {', '.join(stages)}"


def _add_judge(folder: Path, line: Line) -> list[str]:
    """A judge's key for a line that trusts keys and none of a judge; the folder's own deployment names it."""
    if not line.trusted_keys:
        return []
    made, key = _judge_of(line), Path(line.trusted_keys).with_name(JUDGE)
    own = (folder / DEPLOYMENT).is_file() and not line.judge_key and key.is_file()
    if own:
        replace(line, judge_key=str(key)).save(folder)
    said = [f"runs of {folder} are judged with {key}"] if own else []
    if made:
        said.append(
            f"whatever else runs evaluate and gate needs {key} (RETAIN_JUDGE_KEY), and whoever verifies needs "
            f"{line.trusted_keys} and {made}.pem beside it"
        )
    return said


def _judge_of(line: Line) -> str | None:
    """The name of the judge's key that was made; None where the line trusts one already.

    Raises:
        UsageError: the line's keys are not here.
    """
    trusted = Path(line.trusted_keys)
    if any(key.role == "judge" for key in read_trusted(trusted).keys):
        return None
    if not line.signing_key or Path(line.signing_key).resolve() != trusted.with_name(SIGNING).resolve():
        raise UsageError(
            f"{trusted} names no judge, whose key signs what evaluate and gate find, and the line's {SIGNING} is not "
            "beside it: whoever keeps the folder of the line's keys gives this command there, with RETAIN_TRUSTED_KEYS "
            "and RETAIN_SIGNING_KEY naming its files"
        )
    return add_judge(trusted.parent)


def _change(line: Line, main: Mainline, target: int) -> Change | None:
    """The commit that leads to format `target`; None where somebody else made it meanwhile."""
    before = _format(main)
    if before >= target:
        return None
    moment = main.moment()
    said = {"by": person(), "through": "command line", "from": before, "to": target}
    path, event = act(MigrationEvent, f"format-{target}", moment, said)
    files = {PARAMS: main.read(PARAMS) or b"", **MIGRATIONS[target - 2].files(main)}
    files[PARAMS] = _numbered(files[PARAMS] or b"", target)
    return Change({**files, **event_files(line, path, event)}, f"migrate to format {target}\n")


def _format(main: Mainline) -> int:
    """The format of main; raises UsageError for one that is newer, or none."""
    values = main.params_file()
    found = values.get("format", 1)
    if not isinstance(found, int) or found < 1:
        raise UsageError(f"main's {PARAMS} has the format {found!r:.20}, which is no format: put its number back")
    if found > FORMAT:
        check_format(values)
    return found


def _numbered(params: bytes, number: int) -> bytes:
    """The file with another format, its comments kept."""
    words = f"format: {number}".encode()
    changed, found = NUMBER.subn(words, params, count=1)
    return changed if found else words + b"\n" + params
