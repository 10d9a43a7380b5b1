"""A version as a Hugging Face model card: what it knows, how it was made and judged, its limits, how to check and mark.

Names and licences were written by strangers: YAML is dumped, and Markdown escaped. Captions are not in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from cl_steps.formats.bom import LIMITATIONS
from cl_steps.formats.facts import SILENT, Facts

CLASS = re.compile(r"[A-Za-z0-9_]+")
HUB_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
MARKUP = re.compile(r"[\\`*_{}\[\]()#!|~<>&$:@]|^[-+]|(?<=www)\.", re.IGNORECASE)
METRICS = {
    "loss": "denoising loss on held-out pictures, less is better",
    "fidelity": "how well samples fit their prompts: 1 as well as held-out pictures do, 0 no better than chance",
    "kid": "distance of samples from held-out pictures, less is better",
    "diversity": "how much samples of one prompt differ",
}
TEXT = """# {name} {version}

A diffusion model that draws pictures from text. {origin} It is kept up to date with
Retain, which promotes a new version only where it measured that nothing known was lost.

{use}

## What it knows

{slices}

## How it was made

{made}

## Evaluation

{evaluation}

## Limits

{limits}

## How to verify it

{verify}

## Its pictures are synthetic

Say so where you show them. `content-credentials.json` is the manifest definition (C2PA) that any C2PA signer takes to
mark what this model draws, with your certificate; it names this version and its record. Retain's own command for
pictures that are there already:

```
retain mark picture.png --version {version} --certificates chain.pem --key key.pem
```

## Licences

{licences}
"""
USE = """```python
from diffusers import {pipeline}

pipeline = {pipeline}.from_pretrained({folder})
{load}```"""
COMFYUI = "Put `{file}` where ComfyUI has its `models/loras`, or A1111 its `models/Lora`, and load it with its base."
LOAD = 'pipeline.load_lora_weights({folder}, weight_name="pytorch_lora_weights.safetensors")\n'


def model_card(facts: Facts, folder: str, merged: bool = False, comfyui: str = "") -> str:
    """The card of an export into a folder of that name.

    `merged`: the adapter is in the pipeline's weights; `comfyui`: the export is this file alone.
    """
    body = TEXT.format(
        name=escape(facts.line),
        version=facts.version,
        origin=_origin(facts),
        use=COMFYUI.format(file=comfyui) if comfyui else _use(facts, folder, merged),
        slices=_bullets(escape(name) for name in sorted(facts.record.slices)),
        made=_bullets(_made(facts)),
        evaluation=_evaluation(facts),
        limits=_bullets(_limits(facts)),
        verify=_bullets(_verify(facts, merged or bool(comfyui))),
        licences=_bullets(_licences(facts)),
    )
    return f"---\n{yaml.safe_dump(_header(facts, merged), sort_keys=False, allow_unicode=True)}---\n{body}"


def escape(text: object) -> str:
    """Text that Markdown and the HTML in it take for nothing but text, on one line."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", line)


def _use(facts: Facts, folder: str, merged: bool) -> str:
    kind, place = facts.base.pipeline, json.dumps(folder)
    return USE.format(
        folder=place,
        pipeline=kind if CLASS.fullmatch(kind) else "DiffusionPipeline",
        load="" if merged else LOAD.format(folder=place),
    )


def _header(facts: Facts, merged: bool) -> dict[str, Any]:
    base, results = facts.base, list(_results(facts))
    found: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if base.hub_id:
        found |= {"base_model": base.hub_id, "base_model_relation": "finetune" if merged else "adapter"}
    if base.licence:
        found["license"] = base.licence if HUB_LICENCE.fullmatch(base.licence) else "other"
        name = base.licence_name or ("" if found["license"] == base.licence else base.licence)
        found |= {"license_name": name} if name else {}
        found |= {"license_link": base.licence_link} if base.licence_link else {}
    found["tags"] = [*([] if merged else ["lora"]), "text-to-image", "continual-learning", "retain"]
    if results:
        found["model-index"] = [{"name": f"{facts.line} {facts.version}", "results": results}]
    return found


def _results(facts: Facts) -> Iterator[dict[str, Any]]:
    """One result a slice, as the hub's own tables read it."""
    for name, metrics in sorted(facts.record.slices.items()):
        values = [{"type": metric, "value": value} for metric, value in sorted(metrics.items()) if value is not None]
        if values:
            dataset = {"type": "held-out", "name": f"{facts.line}: {name}"}
            yield {"task": {"type": "text-to-image"}, "dataset": dataset, "metrics": values}


def _origin(facts: Facts) -> str:
    hub_id = facts.base.hub_id
    base = f"[{escape(hub_id)}](https://huggingface.co/{hub_id})" if hub_id else "a base"
    if not facts.ancestors:
        return f"It is {base}, with an adapter that changes nothing yet."
    return f"It is {base} with a LoRA adapter, learnt night after night, here from {_code(facts.record.parent)}."


def _made(facts: Facts) -> Iterator[str]:
    record = facts.record
    if not record.run:
        yield "the first version of its line: the base as it came"
        return
    knobs = record.parameters.file.get("update") or {}
    batch = record.figures("ingest").get("batch") or {}
    yield f"run `{_code(record.run)}`, from {_code(record.parent)}, on {_code(record.created)[:10]}"
    method = "rebase" if record.rebase is not None else knobs.get("method", "unknown")
    named = ", ".join(f"`{_code(name)}`" for name in ([method] if isinstance(method, str) else method))
    yield f"method {named}, {_code(knobs.get('steps', 'unknown'))} steps"
    if record.rebase is not None:
        yield "the base is new: an empty adapter learnt on it what the line had kept to replay"
    yield f"{batch.get('assets', 0)} new assets, digest of their list `{_code(facts.digest('batch'))}`"
    gate = facts.record.verdict("gate")
    yield f"the gate said {escape(gate or 'nothing')}" + ("; a person approved" if record.approval else "")
    if record.gpu_seconds:
        yield f"{record.gpu_seconds:.0f} GPU-seconds"


def _evaluation(facts: Facts) -> str:
    rows = {name: metrics for name, metrics in sorted(facts.record.slices.items()) if metrics}
    metrics = sorted({metric for values in rows.values() for metric in values})
    if not metrics:
        return "This version was not measured: it is the base as it came."
    lines = [["slice", *map(escape, metrics)], ["---"] * (len(metrics) + 1)]
    for name, values in rows.items():
        numbers = [values.get(metric) for metric in metrics]
        lines.append([escape(name), *("" if number is None else f"{number:.4g}" for number in numbers)])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{_bullets(f'{metric}: {METRICS[metric]}' for metric in metrics if metric in METRICS)}".rstrip()


def _limits(facts: Facts) -> Iterator[str]:
    yield from LIMITATIONS
    yield "It inherits what the base cannot draw well, or should not: read the base's own card (`BASE_README.md`)."
    if facts.base.checker:
        yield "The base names a safety checker, which no measurement used and which may be missing: check pictures."


def _verify(facts: Facts, merged: bool) -> Iterator[str]:
    yield f"with the line's workspace: `retain verify {facts.version}` recomputes every digest and signature"
    if facts.adapter_sha256 and not merged:
        yield f"SHA-256 of `pytorch_lora_weights.safetensors`: `{facts.adapter_sha256}`"
    yield f"SHA-256 of the version's record in the workspace: `{facts.record_sha256}`"
    yield "`bom.cdx.json` (CycloneDX) lists model, base, data and libraries with their digests"


def _licences(facts: Facts) -> Iterator[str]:
    base = facts.base
    link = f", {escape(base.licence_link)}" if base.licence_link else ""
    told = escape(base.licence_name or base.licence)
    yield f"the base: {told}{link}" if told else "the base came without a word on its licence: ask whoever made it"
    for name, count in facts.licences.items():
        yield f"{count} assets: {escape(name) if name != SILENT else 'no licence was given'}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _code(text: object) -> str:
    """Inside backticks: what could end them is left out."""
    return re.sub(r"[^\w.:+-]", "", str(text))
