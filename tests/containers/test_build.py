"""`containers/build`, run with a fake buildah: what it refuses, what it lends to a build, and what it tells nobody."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINNED = "docker.io/library/python:3.11-slim-bookworm@sha256:" + "0" * 64
SETTINGS = ("PIP_", "UV_", "SSL_CERT", "SOURCE_DATE_EPOCH", "ALLOW_UNPINNED")
# Notes how it was called, and keeps what a build would be lent; the rest of buildah says only a digest.
FAKE = """#!/bin/sh
[ "$1" = build ] || { [ "$1" = images ] && echo sha256:made; exit 0; }
for word in "$@"; do
    echo "$word"
    case $word in
        lent=*) (cd "${word#lent=}" && find . -type f) > "$NOTES/lent" ;;
        id=settings,src=*) cat "${word#id=settings,src=}" > "$NOTES/settings" ;;
    esac
done > "$NOTES/called"
"""
NO_PIP = "#!/bin/sh\nexit 1\n"


class Trial:
    """A fake buildah and what it noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, script in {"buildah": FAKE, "python3": NO_PIP}.items():
            (folder / "bin" / name).write_text(script)
            (folder / "bin" / name).chmod(0o755)

    def build(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        nothing = {"NOTES": str(self.folder), "TMPDIR": str(self.folder)}
        path = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        command = [ROOT / "containers/build", *args]
        everything = {**env, **nothing, **path, **environment}
        return subprocess.run(command, env=everything, text=True, capture_output=True, check=False)

    def noted(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "say which image to build: steps or airflow"),
        (["steps"], "say what to build on: --base docker.io/library/python:3.11-slim-bookworm@sha256:..."),
        (["steps", "--base", "python:3.11"], "the base python:3.11 names no digest: add @sha256:"),
        (["steps", "--base", "python:3.11@sha256:abc"], "names no digest"),
        (["airflow", "--base", PINNED, "--cuda", "13.0"], "--cuda is for steps"),
        (["steps", "--base", PINNED, "--cuda", "latest"], "takes a version such as 13.0"),
        (["steps", "--bass", PINNED], "--bass is no option"),
        (["steps", "--base"], "--base needs a value"),
    ],
)
def test_a_mistake_is_one_sentence(trial: Trial, args: list[str], says: str) -> None:
    done = trial.build(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr
    assert not (trial.folder / "called").exists()


@pytest.mark.parametrize("base", [PINNED, "localhost/own-base:1"])
def test_a_pinned_or_own_base_is_built_on(trial: Trial, base: str) -> None:
    done = trial.build("airflow", "--base", base, "--tag", "localhost/x:1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "localhost/x:1 sha256:made\n"
    called = trial.noted("called").splitlines()
    assert f"BASE={base}" in called
    assert called[called.index("--file") + 1] == "containers/airflow.Dockerfile"
    assert not [word for word in called if word.startswith("TORCH_BACKEND")]


def test_an_unpinned_base_is_taken_when_asked(trial: Trial) -> None:
    assert trial.build("steps", "--base", "python:3.11", ALLOW_UNPINNED="1").returncode == 0


@pytest.mark.parametrize(
    ("args", "backend"), [((), "cpu"), (("--cuda", "13.0"), "cu130"), (("--cuda", "index"), "index")]
)
def test_torch_is_of_the_kind_that_was_asked(trial: Trial, args: tuple[str, ...], backend: str) -> None:
    trial.build("steps", "--base", PINNED, *args)
    assert f"TORCH_BACKEND={backend}" in trial.noted("called").splitlines()


def test_a_lent_torch_is_taken_as_it_is(trial: Trial, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    trial.build("steps", "--base", PINNED, UV_FIND_LINKS=str(wheels))
    assert "TORCH_BACKEND=lent" in trial.noted("called").splitlines()
    assert trial.noted("lent").strip() == f".{wheels}/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert trial.noted("settings").splitlines()[0] == f"UV_FIND_LINKS='/lent{wheels}'"


def test_a_lent_torch_is_not_taken_for_cuda(trial: Trial, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    trial.build("steps", "--base", PINNED, "--cuda", "index", UV_FIND_LINKS=str(wheels))
    assert trial.noted("lent") == ""
    assert len(list(wheels.iterdir())) == 1


def test_a_folder_of_files_is_lent_with_its_index(trial: Trial, tmp_path: Path) -> None:
    for name in ("simple/one/index.html", "files/one.whl"):
        path = tmp_path / "index" / name
        path.parent.mkdir(parents=True)
        path.touch()
    trial.build("airflow", "--base", PINNED, PIP_EXTRA_INDEX_URL=f"file://{tmp_path}/index/simple")
    assert f"UV_INDEX='file:///lent{tmp_path}/index/simple'" in trial.noted("settings").splitlines()
    assert f".{tmp_path}/index/files/one.whl" in trial.noted("lent").splitlines()


def test_an_index_and_its_password_are_a_secret_of_the_build(trial: Trial, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    index = "https://reader:hidden@packages.example/simple"
    done = trial.build("steps", "--base", PINNED, PIP_INDEX_URL=index, PIP_CERT=str(authority))
    assert "hidden" not in done.stdout + done.stderr + trial.noted("called")
    settings = trial.noted("settings").splitlines()
    assert f"UV_DEFAULT_INDEX='{index}'" in settings
    assert "SSL_CERT_FILE=/run/secrets/ca" in settings
    assert f"id=ca,src={authority}" in trial.noted("called").splitlines()


def test_nothing_of_the_build_is_left(trial: Trial) -> None:
    trial.build("steps", "--base", PINNED)
    assert sorted(path.name for path in trial.folder.iterdir()) == ["bin", "called", "lent", "settings"]
