"""What a landing may hold that it should not: the night says so, keeps it, and goes on with the rest."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.commands.conftest import Cli


def test_everything_wrong_at_once(line: Path, cli: Cli) -> None:
    folder = line / "landing" / "odd"
    folder.mkdir()
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "../../../params.yaml", "text": "out"}\n{not json\n{"file_name": "gone.png", "text": "x"}\n'
    )
    (folder / "link.png").symlink_to("/etc/hostname")
    (folder / "empty.png").touch()
    os.mkfifo(folder / "pipe.png")
    (folder / "$(touch owned)`x`.png").write_text("<script>alert(1)</script>")
    (folder / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"x")
    (folder / Path(*"d" * 60)).mkdir(parents=True)
    with (folder / "hole.png").open("wb") as file:
        file.truncate(3 * 2**30)
    code, _, said = cli("night", line)
    assert code == 10, said
    event = json.loads(sorted((line / "events").glob("*.json"))[-1].read_text())
    assert event["intake"]["assets"] == 120
    assert event["intake"]["quarantined"] == 10
    page = (line / "reports" / "night.html").read_text()
    assert all(word in page for word in ("unsafe_path", "too_deep", "too_large", r"odd/\udcff\udcfe.png"))
    assert "<script>" not in page
    assert not list(line.rglob("owned"))


def test_a_tracked_link_in_the_workspace_is_refused(line: Path, cli: Cli) -> None:
    (line / "checks" / "test_x.py").symlink_to("/etc/passwd")
    git = ["git", "-C", str(line), "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run([*git, "add", "checks"], check=True)
    subprocess.run([*git, "commit", "-qm", "link"], check=True)
    code, _, said = cli("night", line)
    subprocess.run([*git, "reset", "-q", "--hard", "origin/main"], check=True)
    assert code == 5
    assert "symbolic link" in said
