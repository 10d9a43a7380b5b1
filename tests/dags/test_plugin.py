"""The tab: who may see it, what it serves, what its pages may do, and that it costs other processes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_steps.orchestration.play import Player

# Airflow's own: it builds on deprecated parts of its libraries.
pytestmark = pytest.mark.filterwarnings("default")
EVIDENTLY = "evidently-2026-01-01-abc.html"
MAX_MILLISECONDS = 50
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def client(player: Player) -> Iterator[Any]:
    """Airflow's own web application, with our plugin found by its entry point."""
    from airflow.api_fastapi.app import create_app, purge_cached_app
    from fastapi.testclient import TestClient

    purge_cached_app()
    yield TestClient(create_app(), raise_server_exceptions=False)
    purge_cached_app()


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three lines: `kept` has its pages in a folder workspace, `remote` behind its work, `bare` nowhere."""
    workspace = tmp_path / "kept"
    (workspace / ".retain").mkdir(parents=True)
    (workspace / ".retain" / "line.json").write_text("{}", encoding="utf-8")
    (workspace / "reports").mkdir()
    (workspace / "reports" / "night.html").write_text("<h1>the page of kept</h1>", encoding="utf-8")
    (workspace / "reports" / EVIDENTLY).write_text("<script>1</script>", encoding="utf-8")
    (workspace / "secret.html").write_text("secret", encoding="utf-8")
    entries = [
        {"name": "kept", "workspace": str(workspace)},
        {"name": "remote", "workspace": "https://git/r", "store": "s3://b/r", "work": f"memory://{tmp_path.name}"},
        {"name": "bare", "workspace": "https://git/b", "store": "s3://b/b"},
    ]
    path = tmp_path / "lines.yaml"
    path.write_text(yaml.safe_dump({"lines": entries}), encoding="utf-8")
    monkeypatch.setenv("RETAIN_LINES", str(path))
    return tmp_path


@pytest.fixture
def ask(client: Any, lines: Path) -> Ask:
    """Ask for an address as a user of a role (None: signed in, without any role)."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def get(address: str, role: str | None = "VIEWER") -> Any:
        token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ann", role=role))
        return client.get(f"/retain/lines/{address}", headers={"Authorization": f"Bearer {token}"})

    return get


def policy(answer: Any) -> str:
    return str(answer.headers["content-security-policy"])


def test_the_tab_is_in_the_page_of_each_dag(client: Any, ask: Ask) -> None:
    from airflow.plugins_manager import _get_ui_plugins

    [view] = [view for view in _get_ui_plugins()[0] if view["name"] == "Retain"]
    assert view["destination"] == "dag"
    assert ask(view["href"].removeprefix("retain/lines/").format(DAG_ID="retain_kept")).status_code == 200


@pytest.mark.parametrize("name", ["", EVIDENTLY, f"frame/{EVIDENTLY}"])
def test_nobody_sees_anything_without_airflows_leave(client: Any, ask: Ask, name: str) -> None:
    stranger = client.get(f"/retain/lines/retain_kept/{name}")
    forged = client.get(f"/retain/lines/retain_kept/{name}", headers={"Cookie": "_token=made.up.token"})
    unauthorised = ask(f"retain_kept/{name}", role=None)
    assert stranger.status_code == 401
    assert forged.status_code in (401, 403)
    assert unauthorised.status_code == 403
    assert not any(b"page of kept" in answer.content for answer in (stranger, forged, unauthorised))
    assert ask(f"retain_kept/{name}").status_code == 200


def test_each_dag_is_asked_for_by_its_own_name(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.app import get_auth_manager

    def only_remote(*, method: str, details: Any, **_: Any) -> bool:
        return method == "GET" and details.id == "retain_remote"

    monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", only_remote)
    assert ask("retain_kept/", role="ADMIN").status_code == 403
    assert ask("retain_remote/?dag_id=retain_kept", role="ADMIN").status_code == 404
    assert ask("retain_kept/?dag_id=retain_remote", role="ADMIN").status_code == 403


def test_the_page_runs_no_script_and_loads_nothing(ask: Ask) -> None:
    answer = ask("retain_kept/")
    assert answer.text == "<h1>the page of kept</h1>"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox allow-same-origin;" in policy(answer)
    assert "default-src 'none'" in policy(answer)
    assert "frame-ancestors 'self'" in policy(answer)
    assert "script" not in policy(answer)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "no-store" in answer.headers["cache-control"]


def test_what_runs_scripts_has_no_origin(ask: Ask) -> None:
    outer, inner = ask(f"retain_kept/{EVIDENTLY}"), ask(f"retain_kept/frame/{EVIDENTLY}")
    assert f'src="frame/{EVIDENTLY}"' in outer.text
    assert 'href="./"' in outer.text
    assert "script" not in policy(outer)
    assert inner.text == "<script>1</script>"
    assert "sandbox allow-scripts;" in policy(inner)
    assert "allow-same-origin" not in policy(inner)
    assert "default-src 'none'" in policy(inner)
    assert "connect-src" not in policy(inner)


@pytest.mark.parametrize(
    "name",
    [
        "secret.html",
        "..%2fsecret.html",
        "%2e%2e/secret.html",
        "frame/..%2f..%2fsecret.html",
        "frame/night.html",
        "night.html%00",
        "evidently-..%2f..%2fsecret.html",
        "evidently-a%0a.html",
        "frame/%2fetc%2fpasswd",
        "night.html/../../secret.html",
    ],
)
def test_no_name_leads_out_of_the_folder(ask: Ask, name: str) -> None:
    answer = ask(f"retain_kept/{name}")
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace("secret.html", "")


def test_a_link_is_not_followed_and_a_pipe_not_waited_for(ask: Ask, lines: Path) -> None:
    reports = lines / "kept" / "reports"
    (reports / EVIDENTLY).unlink()
    (reports / EVIDENTLY).symlink_to(lines / "kept" / "secret.html")
    os.mkfifo(reports / "evidently-2026-01-02-abc.html")
    assert ask(f"retain_kept/frame/{EVIDENTLY}").status_code == 404
    assert ask("retain_kept/frame/evidently-2026-01-02-abc.html").status_code == 404
    reports.rename(lines / "elsewhere")
    reports.symlink_to(lines / "elsewhere")
    assert ask("retain_kept/").status_code == 404


def test_a_file_too_large_is_none_of_ours(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_steps.report import pages

    monkeypatch.setattr(pages, "MAX_BYTES", 10)
    assert ask("retain_kept/").status_code == 404


@pytest.mark.parametrize("dag", ["other", "retain_other", "<script>alert(1)<%2fscript>", "..", "~", "%00", "a" * 3000])
def test_what_is_no_line_has_no_page(ask: Ask, dag: str) -> None:
    answer = ask(f"{dag}/", role="ADMIN")
    assert answer.status_code == 404
    assert "<script" not in answer.text


def test_the_pages_of_a_git_url_come_from_its_work(ask: Ask, lines: Path) -> None:
    import fsspec

    place = f"memory://{lines.name}/pages"
    answer = ask("retain_remote/")
    assert (answer.status_code, f"retain report https://git/r --to {place}" in answer.text) == (404, True)
    fsspec.filesystem("memory").pipe_file(f"{place}/night.html", b"remote")
    assert ask("retain_remote/").text == "remote"
    assert "name one in <code>lines.yaml" in ask("retain_bare/").text


def test_a_place_that_is_away_is_said_so(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def broken(*_: Any, **__: Any) -> bytes:
        raise ConnectionResetError("key=hidden")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", broken)
    answer = ask("retain_remote/")
    assert answer.status_code == 503
    assert "cannot be read now (ConnectionResetError)" in answer.text
    assert "hidden" not in answer.text


def test_lines_that_cannot_be_read_are_said_so(ask: Ask, lines: Path) -> None:
    assert ask("retain_kept/").status_code == 200
    (lines / "lines.yaml").write_text("lines: [{name: kept, workspace: <b>, shedule: 1}]", encoding="utf-8")
    answer = ask("retain_kept/")
    assert answer.status_code == 503
    assert "unknown key &#x27;shedule&#x27;" in answer.text


def test_a_bucket_is_read_with_the_lines_own_credentials(tmp_path: Path) -> None:
    from cl_steps.orchestration.page_places import storage_options
    from cl_steps.orchestration.registry import Entry

    (tmp_path / "aws-credentials").write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s%s\n")
    (tmp_path / "aws-config").write_text("[default]\nregion = eu\nendpoint_url = http://store:9000\n")
    entry = Entry(name="a", workspace="https://git/a", store="s3://b/a", work="s3://b/w", credentials=str(tmp_path))
    options = storage_options("s3://b/w/pages", entry)
    assert (options["key"], options["secret"]) == ("k", "s%s")
    assert options["client_kwargs"] == {"region_name": "eu", "endpoint_url": "http://store:9000"}
    assert storage_options(str(tmp_path), entry) == {}
    assert "key" not in storage_options("s3://b/w/pages", Entry(name="a", workspace="/w"))


def test_other_processes_pay_next_to_nothing_for_the_plugin(tmp_path: Path) -> None:
    code = (
        "import time, sys, airflow.plugins_manager\n"
        "before = set(sys.modules); began = time.perf_counter()\n"
        "import cl_steps.orchestration.tab.plugin\n"
        "print((time.perf_counter() - began) * 1000, *(set(sys.modules) - before))"
    )
    environment = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    took, *modules = done.stdout.split()
    ours = "cl_steps.orchestration.tab.plugin"
    assert set(modules) == {"cl_steps", "cl_steps.orchestration", "cl_steps.orchestration.tab", ours}
    assert float(took) < MAX_MILLISECONDS
