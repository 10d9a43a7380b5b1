"""The gate: verdict, report and JUnit; the user's checks can only add failures, whatever they do."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cl_steps.checks import sandbox as room
from cl_steps.checks.junit import Case, read_cases, write_junit
from cl_steps.checks.own import run_own
from cl_steps.checks.sandbox import Suite
from cl_steps.config import Gate, Params, RunSpec
from cl_steps.errors import RetainError, UsageError
from cl_steps.run.context import Context, StepReport
from cl_steps.stats.figures import Figures, write_figures
from cl_steps.steps import gate
from tests.stats.nights import night

GOOD = night(new=("neon-ink",), fidelity={"neon-ink": 0.5})
BAD = night(fidelity={"black-ink": -0.41})


def decide_on(root: Path, figures: Figures, *checks: str) -> StepReport:
    """The whole step."""
    _write(root, figures, *checks)
    return gate.run(Context(root, Params(), RunSpec()))


def verdict_on(root: Path, figures: Figures, check: str, seconds: int = 100) -> tuple[str, str]:
    """As `decide_on`, without the shipped suite."""
    _write(root, figures, check)
    params = Params(gate=Gate(checks_seconds=seconds))
    decision = gate.decide(root / gate.FIGURES, params)
    return gate._verdict(decision, run_own(root / "checks", root / gate.FIGURES, params))


def _write(root: Path, figures: Figures, *checks: str) -> None:
    folder = root / gate.FIGURES
    folder.mkdir(parents=True)
    write_figures(folder, figures)
    (root / "checks").mkdir()
    for number, text in enumerate(checks):
        (root / "checks" / f"test_own_{number}.py").write_text(text)


def junit_of(root: Path) -> ElementTree.Element:
    return ElementTree.fromstring((root / "reports/junit.xml").read_bytes())  # noqa: S314  we wrote it


def test_a_good_candidate_is_promoted_with_the_users_checks(tmp_path: Path) -> None:
    own = """
def test_new_style(evaluation, params, tmp_path):
    assert evaluation.new_slices == ("neon-ink",) and evaluation.slices == ("black-ink", "blue-ink")
    assert evaluation.change("neon-ink", "fidelity") > params.gate.min_gain
    assert len(evaluation.values("black-ink", "loss", "champion")) == 48
    (tmp_path / "scratch").write_text("allowed")
"""
    report = decide_on(tmp_path, GOOD, own)
    assert report.verdict == "promote", report.why
    assert report.figures["user_checks"] == {"passed": 1, "failed": 0, "skipped": 0}
    assert len(report.figures["checks"]) == 9
    suites = {suite.get("name"): suite for suite in junit_of(tmp_path)}
    assert suites["retain"].get("tests") == "12"
    assert suites["own"].get("tests") == "1"


def test_the_same_night_gives_the_same_bytes(tmp_path: Path) -> None:
    failing = "def test_no():\n    assert object() == 1\n"
    reports = [decide_on(tmp_path / name, BAD, failing) for name in ("one", "two")]
    assert reports[0] == reports[1]
    one, two = ((tmp_path / name / "reports/junit.xml").read_bytes() for name in ("one", "two"))
    assert one == two
    assert all(word not in one for word in (b"time=", b"timestamp", b"hostname", b"/tmp"))


def test_a_bad_candidate_is_rejected_with_the_fall(tmp_path: Path) -> None:
    report = decide_on(tmp_path, BAD)
    assert (report.verdict, report.why) == ("reject", "rejected: black-ink fell by 0.41 in fidelity (margin 0.08)")
    failures = junit_of(tmp_path).findall(".//failure")
    assert len(failures) == 1
    assert "black-ink fell by 0.41" in failures[0].get("message", "")
    assert gate.decide(tmp_path / gate.FIGURES, Params()).verdict == "reject"


def test_a_users_failing_check_rejects_and_says_so(tmp_path: Path) -> None:
    verdict, why = verdict_on(tmp_path, GOOD, "def test_brand():\n    assert 1 == 2, 'the logo is gone'\n")
    assert verdict == "reject"
    assert why.startswith("rejected: your check test_own_0::test_brand failed: AssertionError: the logo is gone")
    assert gate.decide(tmp_path / gate.FIGURES, Params()).verdict == "promote"


@pytest.mark.parametrize(
    ("check", "complaint"),
    [
        ("import os\ndef test_a():\n    os._exit(0)\n", "ended without a report"),
        ("import os\nos._exit(0)\n", "ended without a report"),
        ("import ctypes\ndef test_a():\n    ctypes.string_at(0)\n", "ended without a report"),
        ("def test_a():\n    while True: pass\n", "longer than 5 s"),
        ("this is no python\n", "failed"),
        ("x = 1\n", "hold no test"),
        ("def test_a(no_such_fixture): pass\n", "failed"),
        ("def test_a():\n    held = bytearray(40 * 2**30)\n", "MemoryError"),
        ("import pytest\ndef test_a():\n    pytest.exit('enough', returncode=0)\n", "exit code 2"),
    ],
)
def test_checks_that_cannot_be_completed_reject(tmp_path: Path, check: str, complaint: str) -> None:
    verdict, why = verdict_on(tmp_path, GOOD, check, seconds=5 if "while" in check else 100)
    assert verdict == "reject"
    assert complaint in why


CHEATS = {
    "rewrites the figures": """
import os, pathlib
def test_a():
    for path in pathlib.Path(os.environ["RETAIN_CHECK_INPUTS"]).rglob("*"):
        if path.is_file():
            try:
                path.chmod(0o777)
                path.write_bytes(b"")
            except OSError:
                pass
    try:
        open({target!r}, "w").write("spoilt")
    except OSError:
        pass
""",
    "patches the rule": """
import cl_steps.stats.decision as rule
rule.decide = None
def test_a():
    pass
""",
    "writes its own report": """
import atexit, os, pathlib, sys
def test_a():
    place = next(word for word in sys.argv + [os.environ["HOME"]] if "retain-checks" in word)
    out = pathlib.Path(os.environ["HOME"]).parent / "out" / "junit.xml"
    out.write_text('<testsuites><testsuite name="retain"><testcase classname="a" name="b"/></testsuite></testsuites>')
    os._exit(0)
""",
}


@pytest.mark.parametrize("name", CHEATS)
def test_no_check_turns_a_rejection_into_anything_else(tmp_path: Path, name: str) -> None:
    target = tmp_path / gate.FIGURES / "items.parquet"
    verdict, why = verdict_on(tmp_path, BAD, CHEATS[name].replace("{target!r}", repr(str(target))))
    assert verdict == "reject"
    assert "black-ink fell by 0.41" in why
    if room.isolation()["files"]:
        assert gate.decide(tmp_path / gate.FIGURES, Params()).verdict == "reject"


def test_no_secret_reaches_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-in-the-environment")
    (tmp_path / "credentials").write_text("hunter2-in-a-file")
    look = f"""
import glob, os
def test_a():
    seen = [repr(dict(os.environ))]
    for path in [*glob.glob("/proc/*/environ"), {str(tmp_path / "credentials")!r}, os.path.expanduser("~root/.netrc")]:
        try:
            seen.append(open(path, errors="replace").read())
        except OSError:
            pass
    assert "hunter2-in-the-environment" not in "".join(seen)
    assert "hunter2-in-a-file" not in "".join(seen)
"""
    assert verdict_on(tmp_path, GOOD, look)[0] == "promote"


@pytest.mark.skipif(not room.isolation()["network"], reason="no namespaces here")
def test_no_network_and_no_other_process(tmp_path: Path) -> None:
    check = f"""
import os, socket
def test_a():
    for family in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            socket.socket(socket.AF_INET, family).connect(("192.0.2.1", 53))
        except OSError:
            continue
        assert False, "it reached the network"
    try:
        os.kill({os.getpid()}, 0)
    except OSError:
        return
    assert os.getpid() == {os.getpid()}
"""
    assert verdict_on(tmp_path, GOOD, check)[0] == "promote"


def test_a_symbolic_link_among_the_checks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.py").write_text("def test_a(): pass")
    (tmp_path / "w/checks").mkdir(parents=True)
    (tmp_path / "w/checks/test_link.py").symlink_to(tmp_path / "real.py")
    with pytest.raises(UsageError, match="symbolic link"):
        room.run_suite(tmp_path / "w/checks", tmp_path, Params(), 10)


PASSED, FAILED = Case("a", "b", "passed"), Case("a", "c", "failed")


@pytest.mark.parametrize(
    ("suite", "verdict", "reason"),
    [
        (Suite(()), "promote", "they do not say promote"),
        (Suite((PASSED, FAILED)), "promote", "they do not say promote"),
        (Suite((PASSED, replace(FAILED, outcome="skipped"))), "promote", "they do not say promote"),
        (Suite((PASSED,)), "reject", "they do not say reject"),
        (Suite((PASSED,), "they crashed"), "promote", "they crashed"),
        (Suite((FAILED,), "they crashed"), "reject", "they crashed"),
    ],
)
def test_a_shipped_suite_that_disagrees_is_no_verdict(suite: Suite, verdict: str, reason: str) -> None:
    decision = replace(gate.rule.decide(BAD, Params()), verdict=verdict)
    with pytest.raises(RetainError, match=rf"{reason}\): nothing was decided"):
        gate._check_shipped(suite, decision)


def test_a_gate_whose_shipped_suite_crashed_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "run_suite", lambda *_, **__: Suite((), "they crashed"))
    with pytest.raises(RetainError, match="they crashed"):
        decide_on(tmp_path, BAD)
    assert not (tmp_path / "reports").exists()


def test_the_shipped_suite_runs_where_nothing_can_be_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "isolation", lambda: {"files": False, "calls": False, "network": False})
    assert decide_on(tmp_path, BAD).verdict == "reject"


def test_every_check_is_counted_and_a_suite_that_did_not_end_as_one_that_failed() -> None:
    own = Suite((PASSED, PASSED, PASSED, FAILED, replace(PASSED, outcome="skipped")), "it took too long")
    decision = gate.rule.decide(GOOD, Params())
    assert gate._figures(decision, own)["user_checks"] == {"passed": 3, "failed": 2, "skipped": 1}
    assert gate._verdict(decision, own) == (
        "reject",
        "rejected: your check a::c failed: no message; your checks could not be completed: it took too long",
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"<a", b'<!DOCTYPE a [<!ENTITY x "y">]><testsuites/>', b"<a>" + b"x" * (9 * 2**20) + b"</a>"],
)
def test_what_is_no_junit_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "junit.xml").write_bytes(content)
    assert read_cases(tmp_path / "junit.xml", "/room") is None


def test_junit_is_written_as_it_was_read(tmp_path: Path) -> None:
    cases = (
        Case("place", "name", "failed", "<b>&\x00\x1b[31m", "text ]]> é"),
        Case("place", "two", "passed"),
        Case("place", "three", "skipped", "why"),
    )
    write_junit(tmp_path / "one.xml", {"own": cases})
    back = read_cases(tmp_path / "one.xml", "/room")
    assert back is not None
    assert back[0] == replace(cases[0], message="<b>&??[31m")
    assert back[1:] == cases[1:]


def test_the_gate_imports_no_torch() -> None:
    code = (
        "import sys, cl_steps.steps.gate; sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'dvc')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
