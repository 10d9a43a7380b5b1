"""`retain export`: a version for whoever serves it, in diffusers' own formats and without this package."""

from __future__ import annotations

import shutil
from pathlib import Path

from cl_steps.documents import json_text
from cl_steps.errors import UsageError
from cl_steps.formats.bom import bill_of_materials
from cl_steps.formats.card import model_card
from cl_steps.formats.credentials import manifest
from cl_steps.formats.facts import Facts, gather
from cl_steps.operations.models import Model, fetched
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import reading

CARD, BASE_CARD, BOM, CREDENTIALS = "README.md", "BASE_README.md", "bom.cdx.json", "content-credentials.json"
LICENCES = ("licen[cs]e*", "LICEN[CS]E*")
"""Files of a base that go along also where its weights are written anew."""


def export(version: str, out: str, dir: str, merged: bool) -> str:
    """Write the pipeline and its LoRA, or with `merged` one pipeline with the LoRA in its weights.

    Beside it: a model card, a bill of materials, and the definition of the content credentials of its pictures.

    Raises:
        UsageError: the folder is there already, or there is no such version.
    """
    target = Path(out)
    if target.exists():
        raise UsageError(f"{out} is there already: choose a folder that is not")
    line = resolve(dir)
    with fetched(line, version) as model, reading(line.git) as main:
        facts = gather(line, main, model.version)
        draft = target.with_name(f".{target.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            _write_merged(model, draft) if merged else _write_parts(model, draft)
            _write_papers(model, facts, draft, target.name, merged)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return f"{out}: {model.version}{', merged' if merged else ', base and LoRA'}"


def _write_parts(model: Model, folder: Path) -> None:
    shutil.copytree(model.base, folder)
    shutil.copyfile(model.adapter / "pytorch_lora_weights.safetensors", folder / "pytorch_lora_weights.safetensors")


def _write_merged(model: Model, folder: Path) -> None:
    from cl_steps.models.adapters import fold
    from cl_steps.models.loading import load_pipeline
    from cl_steps.models.lora import read_adapter

    pipeline, adapter = load_pipeline(model.base), read_adapter(model.adapter)
    fold(adapter, {part: pipeline.components[part] for part in adapter.parts})
    pipeline.save_pretrained(folder, safe_serialization=True)


def _write_papers(model: Model, facts: Facts, folder: Path, name: str, merged: bool) -> None:
    """What goes along: a card, what the base brought, the bill of materials, and how to mark pictures."""
    if (model.base / CARD).is_file():
        shutil.copyfile(model.base / CARD, folder / BASE_CARD)
    for path in (path for pattern in LICENCES for path in model.base.glob(pattern) if path.is_file()):
        shutil.copyfile(path, folder / path.name)
    (folder / CARD).write_text(model_card(facts, name, merged), encoding="utf-8")
    (folder / BOM).write_text(json_text(bill_of_materials(facts, merged)), encoding="utf-8")
    (folder / CREDENTIALS).write_text(json_text(manifest(facts)), encoding="utf-8")
