"""Before a model is loaded: its base and its adapter are those of a version's record, which somebody signed who counts.
The new base of a rebase is that of the act of the person who asked for it.

DVC checks the bytes that it fetches against the `.dvc` files beside them. Whoever can write a run's branch can write
those too, but neither main, where the records are, nor a signature of somebody who counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from cl_steps.config import load_run
from cl_steps.errors import IntegrityError
from cl_steps.ledger.champion import CHAMPION, parse_champion
from cl_steps.ledger.names import version_file
from cl_steps.ledger.record import Record
from cl_steps.ledger.schemas import record_fault
from cl_steps.pipeline import NEW_BASE, Step
from cl_steps.records.builders import files_of
from cl_steps.records.signer import provenance_path, signature_path
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline, reading
from cl_steps.store.pointers import read_dvc_file
from cl_steps.verify.authenticity import Trust, check_provenance, check_version
from cl_steps.verify.consistency import next_digests
from cl_steps.verify.rebases import asked_for
from cl_steps.verify.signers import ASK, insist

Check = Callable[[Trust, Record, bytes, bytes], None]
MODEL = ("base", "adapter")


def check_state(line: Line, root: Path, step: Step) -> None:
    """Check what a step is about to load from the checkout at `root`; a step that loads no model needs nothing.

    Raises:
        IntegrityError: the checkout's base or adapter is not its champion's, the champion's record does not count, or
            a rebase's new base is not what a person asked for.
        UsageError: the trusted keys are not right.
        Unavailable: main cannot be read.
    """
    if "state/adapter" not in step.reads:
        return
    version = parse_champion((root / CHAMPION).read_bytes()).version
    with reading(line.git) as main:
        trust = Trust.read(line.trusted_keys)
        record = check_record(main, version, trust)
        asked = asked_for(main, load_run(root).id, trust) if NEW_BASE in step.reads else None
    for part in MODEL:
        try:
            named = str(read_dvc_file((root / f"state/{part}.dvc").read_bytes())["md5"])
        except (OSError, IntegrityError) as error:
            raise IntegrityError(f"state/{part}.dvc names no bytes: trigger a new run") from error
        if named != next_digests(record)[part]:
            raise IntegrityError(f"state/{part}.dvc is not the {part} of {version}, the champion: {ASK}")
    check_files(record, {part: root / "state" / part for part in MODEL})
    if asked:
        _check_folder(asked.files, root / NEW_BASE, "base", "of the rebase that a person asked for")


def check_record(main: Mainline, version: str, trust: Trust | None) -> Record:
    """A version's record as main has it, if its shape and, with `trust`, its signatures are right.

    Raises:
        IntegrityError: they are not.
    """
    path = version_file(version)
    content = main.read(path) or b""
    try:
        document = json.loads(content)
    except ValueError:
        document = {}
    fault = record_fault(document)
    if not fault and document["version"] != version:
        fault = f"it says that it is {document['version']}"
    if fault:
        raise IntegrityError(f"the record of {version} is not right ({fault}): {ASK}")
    record = Record.from_document(document)
    if trust:
        _check_signature(main, trust, record, check_version, content, signature_path(path))
        _check_signature(main, trust, record, check_provenance, content, provenance_path(path))
    return record


def check_files(record: Record, folders: Mapping[str, Path]) -> None:
    """Whether folders (base, adapter) hold exactly the files of the record; raises IntegrityError naming the first."""
    for part, folder in folders.items():
        expected = {path: digest for path, digest in record.files.items() if path.startswith(f"{part}/")}
        if expected:
            _check_folder(expected, folder, part, f"of {record.version}'s record")


def _check_folder(expected: Mapping[str, str], folder: Path, part: str, whose: str) -> None:
    held = files_of(folder, part)
    wrong = sorted(path for path in expected.keys() | held.keys() if expected.get(path) != held.get(path))
    if wrong:
        raise IntegrityError(f"{wrong[0]} is not that {whose}: {ASK}")


def _check_signature(main: Mainline, trust: Trust, record: Record, check: Check, content: bytes, path: str) -> None:
    """One without a signature counts where no version before it has one, and it is older than every trusted key."""
    version, signature = record.version, main.read(path)

    def begun() -> bool:
        return any(f"versions/{name}" < path for name in main.blobs("versions") if name.endswith(".sig"))

    made = datetime.fromisoformat(record.created)
    insist(trust, version, path, signature, made, begun, partial(check, trust, record, content))
