"""The card of an export is a valid Hugging Face card, says what it must, and nothing hostile gets through."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from gto.tag import parse_name
from huggingface_hub import ModelCard

from cl_steps.__main__ import main
from cl_steps.documents import json_text
from cl_steps.formats.card import escape, model_card
from cl_steps.formats.facts import Base, Facts, gather, header
from cl_steps.ledger.names import version_file
from cl_steps.operations.base import copy_model
from cl_steps.repository.git import git, text
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Change, reading
from tests.lasting import documents
from tests.lines.playing import line_after

HOSTILE = "<img src=x onerror=alert(1)> [a](http://b) `c` | d\n---\nlicense: mit\n# e"
BASE = Base("owner/name", "StableDiffusionPipeline", "creativeml-openrail-m", "", "https://x.org/licence", True)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return line_after(tmp_path_factory.mktemp("card") / "line", nights=1)


@pytest.fixture(scope="module")
def facts(line: Line) -> Facts:
    with reading(line.git) as found:
        return gather(line, found, "v2")


def test_it_is_a_card_as_the_hub_reads_it(facts: Facts) -> None:
    card = ModelCard(model_card(replace(facts, base=BASE), "out"))
    assert card.data.base_model == "owner/name"
    assert card.data.license == "creativeml-openrail-m"
    assert card.data.library_name == "diffusers"
    results = {(r.dataset_name, r.metric_type): r.metric_value for r in card.data.eval_results or []}
    assert results == {("my-line: new", "loss"): 0.9, ("my-line: old", "loss"): 0.9}
    assert yaml.safe_load(str(card.data)) == header(card.content.encode())


def test_it_says_what_it_must(facts: Facts) -> None:
    text = ModelCard(model_card(facts, "out")).text
    for expected in (
        "- new\n- old",
        "r-1",
        facts.digest("batch"),
        facts.adapter_sha256,
        facts.record_sha256,
        "retain verify v2",
        "retain mark",
        "synthetic",
        "| new | 0.9 |",
        "24 assets: no licence was given",
        "without a word on its licence",
        'load_lora_weights("out"',
    ):
        assert expected in text
    assert "load_lora_weights" not in model_card(facts, "out", merged=True)


def test_a_version_that_was_never_measured_has_a_card_too(line: Line) -> None:
    with reading(line.git) as found:
        card = ModelCard(model_card(gather(line, found, "v1"), "out"))
    assert card.data.eval_results is None
    assert "not measured" in card.text


def test_nothing_hostile_gets_through(facts: Facts) -> None:
    base = Base("owner/name", HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    trigger = facts.record.trigger.model_copy(update={"reason": HOSTILE})
    hostile = {"run": HOSTILE, "slices": {HOSTILE: {"loss": 1.0}}, "trigger": trigger}
    record = facts.record.model_copy(update=hostile)
    told = replace(facts, base=base, record=record, licences={HOSTILE: 1})
    content = model_card(told, 'o"); import os #')
    card = ModelCard(content)
    assert card.data.license == "other"
    assert set(header(content.encode())) >= {"license", "license_name", "model-index"}
    for forbidden in ("<img", "](http://b)", "`c`", "\n# e", "\nlicense: mit"):
        assert forbidden not in card.text
    assert 'from_pretrained("o\\"); import os #")' in card.text
    assert escape("- a") == "&#45; a"
    assert escape("black-ink 1.5") == "black-ink 1.5"


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def put_base(line: Line, files: dict[str, bytes]) -> None:
    """Give the line another base: its objects into the store, its name into the records on main."""
    entries = [{"md5": md5_of(content), "relpath": name} for name, content in sorted(files.items())]
    listing = json.dumps(entries, sort_keys=True).encode()
    new = md5_of(listing) + ".dir"
    objects = {md5_of(content): content for content in files.values()} | {new: listing}
    for md5, content in objects.items():
        place = Path(line.store) / "files/md5" / md5[:2] / md5[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    with reading(line.git) as found:
        named = {f"base/{name}": hashlib.sha256(content).hexdigest() for name, content in files.items()}
        changed = {}
        for record in documents(found):
            others = {name: sha for name, sha in record["files"].items() if not name.startswith("base/")}
            record |= {"digests": {**record["digests"], "base": new}, "files": {**others, **named}}
            changed[version_file(record["version"])] = json_text(record).encode()
        assert found.push(Change(changed, "another base"))


def test_an_export_has_its_papers(tmp_path: Path) -> None:
    line = line_after(tmp_path / "line", nights=1)
    folder = Path(line.git).parents[1]
    card = "---\nlicense: openrail++\nlicense_link: LICENSE.md\n---\n# The base\n"
    index = json.dumps({"_class_name": "StableDiffusionPipeline", "safety_checker": ["diffusers", "X"]})
    files = {"README.md": card, "LICENSE.md": "terms", "model_index.json": index, "source.json": "[1"}
    put_base(line, {name: content.encode() for name, content in files.items()})
    assert main(["export", "champion", str(tmp_path / "out"), "--dir", str(folder)]) == 0
    out = tmp_path / "out"
    found = ModelCard((out / "README.md").read_text(encoding="utf-8"))
    assert (found.data.license, found.data.license_link) == ("openrail++", "LICENSE.md")
    assert "base_model" not in found.data.to_dict()
    assert "safety checker" in found.text
    assert (out / "BASE_README.md").read_text(encoding="utf-8") == card
    assert (out / "LICENSE.md").read_text(encoding="utf-8") == "terms"
    bom = (out / "bom.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    definition = json.loads((out / "content-credentials.json").read_text(encoding="utf-8"))
    assert definition["assertions"][1]["data"]["version"] == "v2"
    assert not list(tmp_path.glob(".out*"))


def test_a_version_whose_every_weight_was_learnt_is_no_lora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = line_after(tmp_path / "line", nights=1)
    put_base(line, {"model_index.json": b"{}"})
    with reading(line.git) as found:
        changed = {}
        for record in documents(found):
            record["parameters"]["file"].setdefault("update", {})["lora"] = {"rank": "full"}
            changed[version_file(record["version"])] = json_text(record).encode()
        assert found.push(Change(changed, "another rank"))
    folder = Path(line.git).parents[1]
    assert main(["export", "champion", str(tmp_path / "out"), "--dir", str(folder)]) == 2
    assert "which is no LoRA: add --merged" in capsys.readouterr().err
    assert not list(tmp_path.glob(".out*"))


def test_a_base_brings_its_card_and_licence_along(tmp_path: Path) -> None:
    for name in ("README.md", "LICENSE", "model_index.json", "code.py", "weights.bin"):
        (tmp_path / "base").mkdir(exist_ok=True)
        (tmp_path / "base" / name).write_text(name)
    copy_model(tmp_path / "base", tmp_path / "copy")
    assert {p.name for p in (tmp_path / "copy").iterdir()} == {"README.md", "LICENSE", "model_index.json"}


def test_dvc_and_gto_find_their_way_in_a_workspace(tmp_path: Path) -> None:
    """DVC's own commands on a person's checkout, and tags as GTO names them."""
    line = line_after(tmp_path / "line", nights=1)
    folder = Path(line.git).parents[1]
    git(folder, "pull", "-q", "--ff-only", "--tags", "origin", "main")
    for words in (["dag"], ["status", "-c", "state/adapter.dvc"], ["metrics", "show"], ["pull", "state/adapter.dvc"]):
        command = [str(Path(sys.executable).with_name("dvc")), *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (folder / "state/adapter/pytorch_lora_weights.safetensors").is_file()
    tags = [parse_name(tag) for tag in text(folder, "tag", "--list").splitlines()]
    assert ("model", "v0.0.2") in {(tag["name"], tag["version"]) for tag in tags}


def test_what_the_card_of_a_base_of_the_hub_says_is_known() -> None:
    known = Base.of(
        {"source.json": b'{"hub_id": "owner/name", "revision": "abc"}', "README.md": b"---\nlicense: mit\n---\n"}
    )
    assert (known.hub_id, known.licence) == ("owner/name", "mit")
    assert Base.of({"source.json": b'{"hub_id": "x](y"}', "README.md": b"---\n: [\n---\n"}) == Base()
