"""What the Dockerfiles promise: a base by argument, no root, no secret, locked packages, nothing of the making."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "containers").glob("*.Dockerfile"))
NAMES = [path.stem for path in FILES]
Instruction = tuple[str, str]

each = pytest.mark.parametrize("path", FILES, ids=NAMES)


def instructions(path: Path) -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line]


def last_stage(path: Path) -> list[Instruction]:
    found = instructions(path)
    return found[max(place for place, (name, _) in enumerate(found) if name == "FROM") :]


def values(path: Path, name: str) -> list[str]:
    return [value for found, value in instructions(path) if found == name]


def environment(path: Path) -> dict[str, str]:
    words = " ".join(value for name, value in last_stage(path) if name == "ENV").split()
    return dict(word.split("=", 1) for word in words)


def test_there_are_two_images() -> None:
    assert NAMES == ["airflow", "steps"]


@each
def test_the_base_is_an_argument_without_a_default(path: Path) -> None:
    assert values(path, "ARG")[0] == "BASE"
    stages = {"scratch"}
    for value in values(path, "FROM"):
        image, _, stage = value.partition(" AS ")
        assert image == "${BASE}" or image in stages
        stages.add(stage)


@each
def test_the_image_runs_as_nobody_with_a_number(path: Path) -> None:
    users = [value for name, value in last_stage(path) if name == "USER"]
    assert users == ["65532:65532"]


@each
def test_the_entry_point_is_a_list_that_begins_with_tini(path: Path) -> None:
    (entrypoint,) = values(path, "ENTRYPOINT")
    assert json.loads(entrypoint)[:2] == ["/usr/bin/tini", "--"]
    assert isinstance(json.loads(values(path, "CMD")[0]), list)


@each
def test_nothing_is_fetched_but_packages(path: Path) -> None:
    text = path.read_text()
    assert not values(path, "ADD")
    assert not re.search(r"\b(curl|wget|git clone)\b|https?://", text)


@each
def test_no_secret_has_a_place_in_the_image(path: Path) -> None:
    for value in values(path, "ARG") + values(path, "ENV"):
        assert not re.search(r"(?i)secret|passw|token|credential|_key\b|index_url|find_links", value)
    assert not [value for value in values(path, "COPY") if "lent" in value or "settings" in value.split()[-1]]


@each
def test_every_installation_is_locked(path: Path) -> None:
    runs = [run for run in values(path, "RUN") if "pip install" in run]
    assert len(runs) == 3
    for run in runs:
        assert "uv==${UV_VERSION}" in run or "-c constraints.txt" in run or "--no-deps" in run


@each
def test_what_makes_the_image_stays_outside(path: Path) -> None:
    names = [name for name, _ in last_stage(path)]
    assert "RUN" not in names
    copied = [value for name, value in last_stage(path) if name == "COPY"]
    assert {value.split()[-1] for value in copied if value.startswith("--from")} == {"/opt/venv", "/opt/retain"}


@each
def test_bytecode_does_not_look_at_file_times(path: Path) -> None:
    assert "PYC_INVALIDATION_MODE=UNCHECKED_HASH" in path.read_text()
    assert path.read_text().count("--compile-bytecode") == 2


@each
def test_the_image_says_what_it_is(path: Path) -> None:
    text = " ".join(values(path, "LABEL"))
    for label in ("title", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{label}=" in text


@each
def test_what_is_copied_is_not_ignored(path: Path) -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    sources = {source for value in values(path, "COPY") if "--from" not in value for source in value.split()[:-1]}
    assert {source.split("/")[0] for source in sources} <= allowed
    assert all((ROOT / source).exists() for source in sources)


def test_steps_write_below_scratch_alone() -> None:
    env = environment(ROOT / "containers/steps.Dockerfile")
    places = ["HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR", "DVC_SITE_CACHE_DIR"]
    places.append("DVC_GLOBAL_CONFIG_DIR")
    assert all(env[name].startswith("/scratch/") for name in places)
    assert (env["DVC_NO_ANALYTICS"], env["DO_NOT_TRACK"], env["GIT_TERMINAL_PROMPT"]) == ("1", "1", "0")
    made = (ROOT / "containers/entrypoint").read_text()
    assert all(f'"${name}"' in made for name in places)


def test_an_image_of_steps_gives_no_pod_every_gpu() -> None:
    assert "NVIDIA_VISIBLE_DEVICES" not in environment(ROOT / "containers/steps.Dockerfile")


def test_airflow_refuses_what_is_heavy() -> None:
    (check,) = [run for run in values(ROOT / "containers/airflow.Dockerfile", "RUN") if "find_spec" in run]
    assert all(f'"{name}"' in check for name in ("torch", "dvc", "evidently"))
    assert (
        environment(ROOT / "containers/airflow.Dockerfile")["AIRFLOW__CORE__DAGS_FOLDER"]
        == "/opt/retain/cl_steps/orchestration/dag_files"
    )
