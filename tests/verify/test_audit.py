"""`retain audit`: everything verified, then the sealed images, which are not asked of a tampered model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cl_steps.__main__ import main as command_line
from cl_steps.repository.line import Line
from cl_steps.store.pointers import read_dvc_file
from cl_steps.verify import holdout as sealed
from cl_steps.verify.holdout import SliceAudit
from tests.lines.playing import line_after

Audit = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return line_after(tmp_path_factory.mktemp("lines") / "line", nights=1)


@pytest.fixture
def audit(line: Line, capsys: pytest.CaptureFixture[str]) -> Audit:
    def run(*words: str) -> tuple[int, str, str]:
        code = command_line(["audit", str(Path(line.landing).parent), *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def says(worse: bool) -> list[SliceAudit]:
    return [SliceAudit("old", 20, 0.3 if worse else 0.0, 0.2, 0.4, 0.0, 0.15, 0.05, worse)]


def test_all_is_well(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "audit_sealed", lambda *_: says(worse=False))
    code, printed, _ = audit()
    assert code == 0
    assert "all as it should be" in printed
    assert "20 sealed images" in printed


def test_sealed_images_that_are_worse_fail_the_audit(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "audit_sealed", lambda *_: says(worse=True))
    code, printed, said = audit("--json")
    document: dict[str, Any] = json.loads(printed)
    assert (code, document["ok"]) == (5, False)
    assert document["sealed"]["slices"][0]["worse"]
    assert "sealed images of old" in said


def test_they_can_be_left_out(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sealed, "audit_sealed")
    code, printed, _ = audit("--no-sealed")
    assert code == 0
    assert "left out" in printed


def test_a_tampered_model_is_named_and_not_opened(audit: Audit, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sealed, "audit_sealed")
    folder = Path(line.landing).parent
    md5 = str(read_dvc_file((folder / "state/base.dvc").read_bytes())["md5"])
    listing = Path(line.store) / "files" / "md5" / md5[:2] / md5[2:]
    member = json.loads(listing.read_bytes())[0]["md5"]
    place = listing.parents[1] / member[:2] / member[2:]
    place.chmod(0o644)
    content = place.read_bytes()
    place.write_bytes(b"!" + content[1:])
    try:
        code, printed, said = audit()
    finally:
        place.write_bytes(content)
    assert code == 5
    assert "base/weights" in said
    assert "not opened" in printed
