"""Who says what evaluate and gate found: a statement beside each one's report, signed with the judge's key.

    reports/evaluate.intoto.json   in-toto link: this run began so, these were read, these figures and samples came out
    reports/gate.intoto.json       the same of the verdict, and of everything that the steps before stored

Whoever runs a step may write the run's branch. The judge's key is where evaluate and gate run and nowhere else, so that
promotion believes a verdict and the figures behind it, and nobody forges an evaluation with a training step's
credentials. This is in-toto's idea: a layout says who may do which step. The layout is `Step.role` and the `role` of
the trusted keys; in-toto's own layouts would be a second list of keys beside those, and know no folders of a DVC store.
Materials of a later statement are the products of the one before, so that nothing is swapped in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cl_steps.digests import sha256
from cl_steps.documents import Json
from cl_steps.errors import IntegrityError, UsageError
from cl_steps.pipeline import EVALUATE, GATE, STAGES, STEPS, Step
from cl_steps.records.builders import files_of
from cl_steps.records.signer import sign_statement, signer_of
from cl_steps.repository.beginning import LOCAL
from cl_steps.repository.git import text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import reading
from cl_steps.repository.run_branch import RunState, run_state
from cl_steps.store.pointers import lock_outs
from cl_steps.verify.authenticity import Doubt, Trust
from cl_steps.verify.before_loading import check_state

LINK = "https://in-toto.io/attestation/link/v0.3"
FIGURES, CANDIDATE = "tonight/evaluation/figures", "tonight/candidate/adapter"
IN_FULL = {EVALUATE.name: (FIGURES, CANDIDATE)}
"""Folders of which a statement names every file by its SHA-256: DVC's own names (md5) can be made to collide."""
Digests = dict[str, dict[str, str]]
"""What in-toto calls a digest set, by the name of what it is of."""


@dataclass(frozen=True)
class Judging:
    """Oversight of a run's stages: none runs on a champion that is not main's, and judges sign what they found."""

    line: Line

    def check(self, root: Path, step: Step) -> None:
        """See `Oversight`.

        Raises:
            IntegrityError: base or adapter is not the champion's, or the gate is to judge figures that no judge made.
            UsageError: a judge's step has no key to sign with, and the line believes signed findings alone.
        """
        check_state(self.line, root, step)
        trust = believed(self.line)
        if trust is None or not step.judges:
            return
        if not self.line.judge_key:
            raise UsageError(f"{step.name} needs the judge's key: RETAIN_JUDGE_KEY names its file (`retain keys`)")
        if step.name == GATE.name:
            check_judged(trust, root, run_state(root), EVALUATE, self._moment(), in_full=(FIGURES,))

    def is_vouched(self, root: Path, step: Step, state: RunState) -> bool:
        """See `Oversight`; of a step that judges nothing, it is nobody's to say."""
        trust = believed(self.line)
        try:
            if trust and step.judges:
                check_judged(trust, root, state, step, self._moment(), in_full=())
        except IntegrityError:
            return False
        return True

    def vouch(self, root: Path, step: Step) -> None:
        """See `Oversight`; without a judge's key nothing is signed."""
        signer = signer_of(replace(self.line, signing_key=self.line.judge_key))
        if signer and step.judges:
            subjects, materials = _found(root, run_state(root), step, IN_FULL.get(step.name, ()))
            link = {"name": step.name, "command": [], "materials": _resources(materials), "byproducts": {}}
            path = root / step.statement
            path.write_bytes(sign_statement(signer, subjects, LINK, {**link, "environment": {}}))

    def _moment(self) -> datetime:
        with reading(self.line.git) as main:
            return main.moment()


def statements(root: Path) -> dict[str, str]:
    """The signed statements of a run's judges, by step, as they are kept in a version's record."""
    paths = {step.name: root / step.statement for step in STAGES if step.judges}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()}


def believed(line: Line) -> Trust | None:
    """Whose findings the line believes; None where it has no trusted keys at all, so that anybody's count.

    Raises:
        UsageError: it has some, and none of a judge.
    """
    trust = Trust.read(line.trusted_keys)
    if trust and not trust.names_judge:
        raise UsageError(
            f"{line.trusted_keys} names no judge, whose key signs what evaluate and gate find: "
            "`retain migrate` makes one"
        )
    return trust


def why_not_believed(line: Line, root: Path, state: RunState, moment: datetime) -> str | None:
    """Why what evaluate and gate say on a run's branch does not count then; None where it does, or they say nothing."""
    try:
        trust = believed(line)
        for step in STAGES if trust else ():
            report = state.reports.get(step.name)
            if trust and step.judges and report and report.done:
                check_judged(trust, root, state, step, moment, in_full=())
    except (UsageError, IntegrityError) as error:
        return str(error)
    return None


def check_judged(
    trust: Trust, root: Path, state: RunState, step: Step, moment: datetime, in_full: tuple[str, ...]
) -> None:
    """Whether a judge signed what a run's branch holds of a step.

    Args:
        trust: whose keys count, and when.
        root: a clone of the run's branch.
        state: what it holds.
        step: evaluate or gate.
        moment: `Mainline.moment`, as it is written into the record: a key counts by main's clock, whoever asks.
        in_full: those folders of `IN_FULL` that are here, and whose files are to be compared, too.

    Raises:
        IntegrityError: nobody who counts signed exactly this.
    """
    path, absent = root / step.statement, set(IN_FULL.get(step.name, ())) - set(in_full)
    try:
        signature = path.read_bytes() if path.is_file() else b""
        statement = trust.statement(signature, moment, "judge")
        compare_statement(statement, _found(root, state, step, in_full), absent)
    except Doubt as doubt:
        raise disbelief(step, state.spec.id, doubt) from doubt


def disbelief(step: Step, run: str, doubt: Doubt) -> IntegrityError:
    """What to say of a finding that does not count."""
    return IntegrityError(
        f"what {step.name} found in run {run} does not count: {doubt}; clear {step.name}, or trigger a new run"
    )


def compare_statement(statement: Json, found: tuple[Digests, Digests], absent: Collection[str]) -> None:
    """Whether a statement says just what was found, but for files of folders that are `absent`; raises Doubt."""
    predicate = statement.get("predicate")
    if statement.get("predicateType") != LINK or not isinstance(predicate, Mapping):
        raise Doubt("bad_signature", "what was signed is no finding of a judge")
    signed = (_digests(statement.get("subject")), _digests(predicate.get("materials")))
    for said, is_so in zip(signed, found, strict=True):
        about = {name: digest for name, digest in said.items() if not _is_below(name, absent)}
        wrong = sorted(name for name in about.keys() | is_so.keys() if about.get(name) != is_so.get(name))
        if wrong:
            raise Doubt("bad_signature", f"{wrong[0]} is not what the judge signed")


def _is_below(name: str, folders: Collection[str]) -> bool:
    return any(name.startswith(f"{folder}/") for folder in folders)


def found_in(lock: Json, reports: Mapping[str, str], begun: str, step: str) -> tuple[Digests, Digests]:
    """What a step found, and what it had before it: the subjects and the materials of its statement.

    Args:
        lock: the entries of `dvc.lock`, by stage.
        reports: SHA-256 of each step's report.
        begun: the run's first commit.
        step: its name.
    """
    names = [stage.name for stage in STAGES]
    later, entry = names[names.index(step) :], lock.get(step) or {}
    subjects = {**_outs({step: entry}), **_reports(reports, [step])}
    materials = {dep["path"]: _md5(dep["md5"]) for dep in entry.get("deps", ())}
    materials |= _outs({name: stage for name, stage in lock.items() if name not in later})
    materials |= {**_reports(reports, names[: names.index(step)]), "begun": {"gitCommit": begun}}
    return subjects, materials


def _found(root: Path, state: RunState, step: Step, in_full: tuple[str, ...]) -> tuple[Digests, Digests]:
    """The same of a clone of the run's branch at `root`, and every file of those folders."""
    reports = {s.name: sha256((root / s.report).read_bytes()) for s in STAGES if (root / s.report).is_file()}
    subjects, materials = found_in(state.lock, reports, text(root, "rev-parse", LOCAL), step.name)
    for folder in in_full:
        named = {path: {"sha256": digest} for path, digest in files_of(root / folder, folder).items()}
        (subjects if folder in subjects else materials).update(named)
    return subjects, materials


def _outs(lock: Json) -> Digests:
    return {path: _md5(out["md5"]) for path, out in lock_outs(lock).items()}


def _md5(name: object) -> dict[str, str]:
    return {"md5": str(name).removesuffix(".dir")}


def _reports(digests: Mapping[str, str], steps: Iterable[str]) -> Digests:
    return {STEPS[name].report: {"sha256": digests[name]} for name in steps if name in digests}


def _resources(digests: Digests) -> list[dict[str, Any]]:
    return [{"name": name, "digest": digest} for name, digest in sorted(digests.items())]


def _digests(resources: Any) -> Digests:
    try:
        return {item["name"]: dict(item["digest"]) for item in resources}
    except (KeyError, TypeError, ValueError):
        return {}
