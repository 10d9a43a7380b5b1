"""Content credentials: they name the version, leave the pixels alone, and show that a picture was changed."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cl_steps.__main__ import main
from cl_steps.formats import credentials
from cl_steps.repository.line import Line
from tests.lines.playing import line_after
from tests.records.certificates import write_signer

KINDS = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return line_after(tmp_path_factory.mktemp("marking") / "line", nights=1)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return


def draw(folder: Path, kind: str) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    path = folder / f"picture.{kind}"
    Image.fromarray(pixels).save(path)
    return path


def mark(line: Line, signer: tuple[Path, Path], *words: object, version: str = "v2") -> int:
    chain, key = signer
    folder = Path(line.git).parents[1]
    fixed = ["--version", version, "--certificates", chain, "--key", key, "--dir", folder]
    return main([str(word) for word in ("mark", *words, *fixed)])


def told(path: Path) -> tuple[dict[str, Any], str]:
    """The active manifest's assertions by label, and the state of its validation."""
    store = credentials.read(path.read_bytes(), KINDS[path.suffix[1:]])
    assert store is not None
    active = store["manifests"][store["active_manifest"]]
    assert active["claim_generator_info"][0]["name"] == "Retain"
    return {a["label"]: a["data"] for a in active["assertions"]}, store["validation_state"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_marked_picture_names_its_version_and_keeps_its_pixels(
    line: Line, signer: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    path = draw(tmp_path, kind)
    before = np.asarray(Image.open(path)).copy()
    assert mark(line, signer, path, version="champion") == 0
    assertions, state = told(path)
    record = Path(line.git).parents[1] / "versions/v0002.json"
    model = assertions["retain.version"]
    assert (model["line"], model["version"]) == ("my-line", "v2")
    assert state == "Valid"
    assert model["record_sha256"] == hashlib.sha256(git_file(line, record.name)).hexdigest()
    adapters = {hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(line.store).rglob("*") if p.is_file()}
    assert model["adapter_sha256"] in adapters
    [action] = assertions["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert np.array_equal(np.asarray(Image.open(path)), before)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def git_file(line: Line, name: str) -> bytes:
    from cl_steps.repository.git import git

    return git(Path(line.git), "show", f"main:versions/{name}")


def test_a_changed_picture_is_seen(line: Line, signer: tuple[Path, Path], tmp_path: Path) -> None:
    path = draw(tmp_path, "jpg")
    assert mark(line, signer, path) == 0
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    assert told(path)[1] == "Invalid"


def test_a_picture_that_is_marked_already_is_refused_and_no_other_is_written(
    line: Line, signer: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marked, other, out = draw(tmp_path, "png"), draw(tmp_path, "jpg"), tmp_path / "out"
    assert mark(line, signer, marked) == 0
    assert mark(line, signer, other, marked, "--to", out) == 2
    assert "already" in capsys.readouterr().err
    assert not out.exists()
    assert credentials.read(other.read_bytes(), "image/jpeg") is None
    assert mark(line, signer, other, "--to", out) == 0
    assert told(out / other.name)[1] == "Valid"
    assert credentials.read(other.read_bytes(), "image/jpeg") is None


def test_what_cannot_be_used_is_one_sentence(
    line: Line, signer: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = draw(tmp_path, "png")
    broken, page = tmp_path / "broken.png", tmp_path / "page.html"
    broken.write_bytes(b"no picture")
    page.write_text("x")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    other = write_signer(stranger)
    cases: list[tuple[tuple[Path, Path], tuple[object, ...], str]] = [
        ((signer[0], other[1]), (path,), "not that of the first certificate"),
        ((signer[1], signer[1]), (path,), "no PEM certificates"),
        ((signer[0], signer[0]), (path,), "no PEM private key"),
        ((tmp_path / "none.pem", signer[1]), (path,), "cannot be read"),
        (signer, (broken,), "C2PA"),
        (signer, (page,), ".png"),
        (signer, (path, path), "twice"),
    ]
    for pair, words, expected in cases:
        assert mark(line, pair, *words) == 2
        said = capsys.readouterr().err
        assert expected in said
        assert said.count("\n") == 1
    assert mark(line, signer, path, version="v9") == 2


def test_without_the_library_it_says_what_to_install(
    line: Line, signer: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert mark(line, signer, draw(tmp_path, "png")) == 2
    assert "retain[marking]" in capsys.readouterr().err


def test_the_definition_is_what_a_server_can_use(line: Line) -> None:
    from cl_steps.formats.facts import gather
    from cl_steps.repository.mainline import reading

    with reading(line.git) as found:
        definition = credentials.manifest(gather(line, found, "v2"))
    assert json.loads(json.dumps(definition)) == definition
    assert {a["label"] for a in definition["assertions"]} == {"c2pa.actions.v2", "retain.version"}
