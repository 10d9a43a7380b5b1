"""A line in MLflow's registry: every version once, the champion's alias, and nothing lost on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from cl_steps.__main__ import main
from cl_steps.documents import json_text
from cl_steps.errors import Unavailable, UsageError
from cl_steps.formats.mlflow import Server
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading
from tests.formats.mlflow_servers import Fake, fake, real
from tests.lasting import read_json
from tests.lines.playing import line_after

Ask = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def server() -> Iterator[Fake]:
    with fake() as found:
        yield found


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return line_after(tmp_path / "line", nights=1)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Mirror; exit code, document, what was said."""
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)

    def run(line: Line, url: str) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = main(["mirror", str(Path(line.git).parents[1]), "--mlflow", url, "--json"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out or "{}"), printed.err

    return run


def crown(line: Line, version: str) -> None:
    """Main says that this version is the champion, as after a rollback."""
    with reading(line.git) as found:
        champion = {**read_json(found, "state/champion.json"), "version": version}
        assert found.push(Change({"state/champion.json": json_text(champion).encode()}, "roll back"))


def test_every_version_is_there_once_and_the_alias_follows(line: Line, server: Fake, ask: Ask) -> None:
    code, first, _ = ask(line, server.url)
    assert code == 0
    assert (first["champion"], first["versions"]) == ("v2", {"v1": "1", "v2": "2"})
    assert server.models == {"my-line": {"champion": "2"}}
    run = server.runs[first["made"]["v2"]["run"]]
    assert run["status"] == "FINISHED"
    assert run["metrics"]["old/loss"] == 0.9
    assert run["params"]["update.method"] == "replay_distill"
    tags = run["tags"]
    assert (tags["retain.version"], tags["retain.parent"], tags["retain.run"]) == ("v2", "v1", "r-1")
    assert (tags["retain.signature"], len(tags["retain.adapter_sha256"])) == ("none", 64)
    assert [v["run_id"] for v in server.versions] == [found["run"] for found in first["made"].values()]
    names = {name.rpartition("/")[2] for name in server.artifacts if "run1" in name}
    assert names == {"record.json", "bom.cdx.json", "README.md", "night.html"}
    with reading(line.git) as found:
        assert server.artifacts["1/run1/artifacts/retain/record.json"] == found.read("versions/v0002.json")

    crown(line, "v1")
    code, again, _ = ask(line, server.url)
    assert (code, again["made"], again["versions"]) == (0, {}, first["versions"])
    assert server.models == {"my-line": {"champion": "1"}}
    assert len(server.versions) == len(server.runs) == 2


def test_a_mirror_that_was_killed_is_gone_on_with(line: Line, server: Fake, ask: Ask) -> None:
    assert ask(line, server.url)[0] == 0
    server.versions.pop()
    code, again, _ = ask(line, server.url)
    assert (code, list(again["made"]), again["versions"]) == (0, ["v2"], {"v1": "1", "v2": "2"})
    assert len(server.runs) == 2


def test_a_signature_goes_along(line: Line, server: Fake, ask: Ask) -> None:
    with reading(line.git) as found:
        assert found.push(Change({"versions/v0002.sig": b"{}"}, "sign"))
    code, document, _ = ask(line, server.url)
    assert code == 0
    assert server.runs[document["made"]["v2"]["run"]]["tags"]["retain.signature"] == "there"
    assert server.artifacts["1/run1/artifacts/retain/record.sig"] == b"{}"


def test_a_server_that_serves_no_artifacts_gets_the_figures(line: Line, server: Fake, ask: Ask) -> None:
    server.scheme = "s3://bucket/"
    code, document, said = ask(line, server.url)
    assert code == 0
    assert not document["made"]["v2"]["artifacts"]
    assert "--serve-artifacts" in said
    assert not server.artifacts


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"TOKEN": "t"}, "Bearer t"),
        ({"USERNAME": "u", "PASSWORD": "p"}, "Basic dTpw"),
        ({"USERNAME": "u", "PASSWORD": "p", "TOKEN": "t"}, "Basic dTpw"),
        ({}, ""),
    ],
)
def test_credentials_are_those_of_mlflows_clients(server: Fake, given: dict[str, str], expected: str) -> None:
    environ = {f"MLFLOW_TRACKING_{name}": value for name, value in given.items()}
    Server.of(f"{server.url}/", environ).post("experiments/create", {"name": "x"})
    assert server.authorizations == {expected}


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, UsageError, "MLFLOW_TRACKING_TOKEN"),
        (400, UsageError, "no way"),
        (302, UsageError, "302"),
        (503, Unavailable, "try again"),
        (404, UsageError, "404"),
    ],
)
def test_what_a_server_answers_becomes_one_sentence(
    server: Fake, status: int, error: type[Exception], words: str
) -> None:
    server.status = status
    with pytest.raises(error, match=words) as caught:
        Server(server.url, "Bearer secret").get("experiments/get-by-name", experiment_name="x")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_server_is_said(line: Line, ask: Ask) -> None:
    assert ask(line, "http://127.0.0.1:9")[0] == 6
    for url in ("file:///etc/passwd", "mlflow.example.org", "https://u:secret@mlflow.example.org"):
        code, _, said = ask(line, url)
        assert code == 2
        assert "secret" not in said


@pytest.mark.slow
def test_a_real_server_shows_the_line(tmp_path: Path, ask: Ask) -> None:
    line = line_after(tmp_path / "line", nights=2)
    (tmp_path / "mlflow").mkdir()
    with real(tmp_path / "mlflow") as url:
        code, first, said = ask(line, url)
        assert code == 0, said
        server = Server.of(url, {})
        assert alias(server) == first["versions"]["v3"]
        found = server.get("model-versions/get", name="my-line", version=first["versions"]["v3"])["model_version"]
        assert {tag["key"]: tag["value"] for tag in found["tags"]}["retain.version"] == "v3"
        run = server.get("runs/get", run_id=found["run_id"])["run"]
        assert run["info"]["status"] == "FINISHED"
        assert {m["key"]: m["value"] for m in run["data"]["metrics"]}["new/loss"] == 0.9
        assert {p["key"]: p["value"] for p in run["data"]["params"]}["seed"] == "0"
        listed = server.get("artifacts/list", run_id=found["run_id"], path="retain")["files"]
        names = {Path(entry["path"]).name for entry in listed}
        assert names == {"record.json", "bom.cdx.json", "README.md", "night.html"}
        place = f"{run['info']['artifact_uri'].removeprefix('mlflow-artifacts:/')}/retain/record.json"
        with urlopen(f"{url}/api/2.0/mlflow-artifacts/artifacts/{place.lstrip('/')}") as answer, reading(line.git) as m:
            assert answer.read() == m.read("versions/v0003.json")
        crown(line, "v2")
        code, again, _ = ask(line, url)
        assert (code, again["made"], alias(server)) == (0, {}, first["versions"]["v2"])


def alias(server: Server) -> str:
    return str(server.get("registered-models/alias", name="my-line", alias="champion")["model_version"]["version"])
