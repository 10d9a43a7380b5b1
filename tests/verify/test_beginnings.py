"""What no main may track."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from cl_steps.repository.git import git, text
from cl_steps.verify.beginnings import check_links
from cl_steps.verify.evidence import Evidence


def test_links_and_submodules_of_main_are_named(tmp_path: Path) -> None:
    git(None, "init", "-q", "-b", "main", str(tmp_path))
    (tmp_path / "plain").write_text("120000", encoding="utf-8")
    (tmp_path / "link").symlink_to("/etc/passwd")
    git(tmp_path, "add", "--all")
    git(tmp_path, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    tree = text(tmp_path, "write-tree")
    main = SimpleNamespace(folder=tmp_path, tip=tree)
    found = check_links(Evidence(main, None, [], {}, {}))  # type: ignore[arg-type]
    assert [finding.where for finding in found] == ["link", "module"]
