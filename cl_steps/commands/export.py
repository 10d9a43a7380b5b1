"""`retain export`: a version for whoever serves it, in diffusers' own formats and without this package."""

from __future__ import annotations

import json
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
from cl_steps.trace.versions import parameters

CARD, BASE_CARD, BOM, CREDENTIALS = "README.md", "BASE_README.md", "bom.cdx.json", "content-credentials.json"
LICENCES = ("licen[cs]e*", "LICEN[CS]E*")
"""Files of a base that go along also where its weights are written anew."""


def export(version: str, out: str, dir: str, merged: bool, format: str) -> str:
    """Write the pipeline and its LoRA, or with `merged` one pipeline with the LoRA in its weights.

    The format `comfyui` is the LoRA alone, in one file as ComfyUI (and A1111 that of a UNet) loads it.

    Beside it: a model card, a bill of materials, and the definition of the content credentials of its pictures.

    Raises:
        UsageError: the folder is there already, or there is no such version.
    """
    target, comfyui = Path(out), format == "comfyui"
    if merged and comfyui:
        raise UsageError("--format comfyui is the LoRA alone, and --merged has none: choose one of them")
    if target.exists():
        raise UsageError(f"{out} is there already: choose a folder that is not")
    line = resolve(dir)
    with fetched(line, version) as model, reading(line.git) as main:
        facts = gather(line, main, model.version)
        if not merged and parameters(facts.record).get("update.lora.rank") == "full":
            raise UsageError(f"{model.version} has every weight of its base learnt, which is no LoRA: add --merged")
        draft = target.with_name(f".{target.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            if comfyui:
                _write_comfyui(model, draft / f"{target.name}.safetensors")
            else:
                _write_merged(model, draft) if merged else _write_parts(model, draft)
            card = model_card(facts, target.name, merged, f"{target.name}.safetensors" if comfyui else "")
            _write_papers(model, facts, draft, card)
            (draft / BOM).write_text(json_text(bill_of_materials(facts, merged, comfyui)), encoding="utf-8")
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        what = "the LoRA for ComfyUI" if comfyui else "merged" if merged else "base and LoRA"
        return f"{out}: {model.version}, {what}"


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


def _write_comfyui(model: Model, file: Path) -> None:
    from cl_steps.models.interchange import write_comfyui
    from cl_steps.models.lora import read_adapter

    adapter = read_adapter(model.adapter)
    index = json.loads((model.base / "model_index.json").read_text(encoding="utf-8"))
    write_comfyui(file, adapter, str(index[adapter.parts[0]][1]))


def _write_papers(model: Model, facts: Facts, folder: Path, card: str) -> None:
    """What goes along: a card, what the base brought, and how to mark pictures."""
    if (model.base / CARD).is_file():
        shutil.copyfile(model.base / CARD, folder / BASE_CARD)
    for path in (path for pattern in LICENCES for path in model.base.glob(pattern) if path.is_file()):
        shutil.copyfile(path, folder / path.name)
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / CREDENTIALS).write_text(json_text(manifest(facts)), encoding="utf-8")
