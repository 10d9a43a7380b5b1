"""`retain export`: a version for whoever serves it, in diffusers' own formats and without this package."""

from __future__ import annotations

import shutil
from pathlib import Path

from cl_steps.commands.models import Model, fetched
from cl_steps.errors import UsageError
from cl_steps.workspace.line import resolve

CARD = """---
library_name: diffusers
tags: [lora, text-to-image, continual-learning]
---
# {name} {version}

Made by run `{run}` from {parent}; it knows {slices}.

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("{folder}")
{load}```
"""
LOAD = 'pipeline.load_lora_weights("{folder}", weight_name="pytorch_lora_weights.safetensors")\n'


def export(version: str, out: str, dir: str, merged: bool) -> str:
    """Write the pipeline and its LoRA, or with `merged` one pipeline with the LoRA in its weights.

    Raises:
        UsageError: the folder is there already, or there is no such version.
    """
    target = Path(out)
    if target.exists():
        raise UsageError(f"{out} is there already: choose a folder that is not")
    with fetched(resolve(dir), version) as model:
        draft = target.with_name(f".{target.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            _write_merged(model, draft) if merged else _write_parts(model, draft)
            (draft / "README.md").write_text(_card(model, target.name, merged), encoding="utf-8")
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return f"{out}: {model.version}{', merged' if merged else ', base and LoRA'}"


def _write_parts(model: Model, folder: Path) -> None:
    shutil.copytree(model.base, folder)
    shutil.copyfile(model.adapter / "pytorch_lora_weights.safetensors", folder / "pytorch_lora_weights.safetensors")


def _write_merged(model: Model, folder: Path) -> None:
    from cl_steps.diffusion.loading import load_pipeline

    pipeline = load_pipeline(model.base)
    pipeline.load_lora_weights(model.adapter, weight_name="pytorch_lora_weights.safetensors")
    pipeline.fuse_lora()
    # Fused weights stay; without this the files would hold the adapter's layers beside them.
    pipeline.unload_lora_weights()
    pipeline.save_pretrained(folder, safe_serialization=True)


def _card(model: Model, folder: str, merged: bool) -> str:
    facts = {
        "name": model.params.name,
        "version": model.version,
        "run": model.record["run"] or "none: the base as it came",
        "parent": model.record["parent"] or "nothing",
        "slices": ", ".join(sorted(model.record["slices"])),
        "folder": folder,
        "load": "" if merged else LOAD.format(folder=folder),
    }
    return CARD.format(**facts)
