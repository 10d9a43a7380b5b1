"""A small line as it would be after five nights: a Git remote and a DVC store, written by hand, no step run.

`hostile` is put into every text that a step or a person may write.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

from cl_steps.documents import write_json
from cl_steps.repository.git import git
from cl_steps.repository.line import Line
from tests.lasting import whole_record

OLD, NEON, CHALK = ("black-ink", "blue-ink", "red-pencil"), "neon-ink", "white-chalk"
RUNS = tuple(f"2026-11-0{day}-{'0a1b2c3d4e5f'[day : day + 4]}{day:04d}" for day in range(1, 6))
INKS = {
    "black-ink": (20, 20, 20),
    "blue-ink": (40, 70, 190),
    "red-pencil": (200, 60, 60),
    NEON: (60, 240, 130),
    CHALK: (245, 245, 240),
}
PAPERS = {NEON: (24, 16, 48), CHALK: (44, 62, 54)}
PROMPTS = 8
DIGITS = ("three", "seven", "zero", "one")


def fabricate(folder: Path, hostile: str = "") -> Line:
    """Make the line's remote and store under `folder`."""
    line = Line(str(folder / "git"), str(folder / "store"), "", str(folder / "landing"))
    root = folder / "tree"
    git(None, "init", "-q", "-b", "main", str(root))
    git(None, "init", "-q", "--bare", "-b", "main", line.git)
    _write_yaml(root / "params.yaml", {"format": 1, "name": "demo-line", "seed": 0})
    _commit(root, line, "main")
    nights = _nights(hostile)
    for run, night in zip(RUNS, nights, strict=True):
        _write_branch(root, line, run, night, Path(line.store), hostile)
    git(root, "checkout", "-q", "main")
    _write_main(root, nights, hostile)
    _commit(root, line, "main")
    return line


def store_folder(store: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Put a folder into a DVC store; returns the output as `dvc.lock` names it (without its path)."""
    listing = [{"md5": put(store, content), "relpath": name} for name, content in sorted(files.items())]
    digest = put(store, json.dumps(listing, sort_keys=True).encode(), ".dir")
    return {"hash": "md5", "md5": digest, "size": sum(map(len, files.values())), "nfiles": len(files)}


def put(store: Path, content: bytes, suffix: str = "") -> str:
    """Put one object into a DVC store; returns its name."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = object_path(store, digest + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest + suffix


def object_path(store: Path, digest: str) -> Path:
    """Where a DVC store keeps an object."""
    return store / "files" / "md5" / digest[:2] / digest[2:]


def grid_png(style: str, seed: int, spoiled: float = 0.0) -> bytes:
    """A row of small drawings in a style, the more spoiled the less like it."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (32 * PROMPTS, 32), PAPERS.get(style, (250, 248, 242)))
    pen = ImageDraw.Draw(image)
    for place in range(PROMPTS):
        points = [(32 * place + int(x), int(y)) for x, y in rng.integers(5, 27, size=(4, 2))]
        pen.line(points, fill=INKS.get(style, (90, 90, 90)), width=3, joint="curve")
    pixels = np.asarray(image, np.float64) + spoiled * rng.normal(0, 160, size=(32, 32 * PROMPTS, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def gate_check(
    name: str, metric: str, estimate: float, half: float, margin: float, against: str = "champion", gain: bool = False
) -> dict[str, Any]:
    """A check of the gate whose verdict follows from its interval."""
    lower, upper = estimate - half, estimate + half
    passed, failed = (lower > margin, upper < margin) if gain else (upper < margin, lower > margin)
    return {
        "slice": name,
        "metric": metric,
        "against": against,
        "kind": "superiority" if gain else "non-inferiority",
        "units": 96,
        "estimate": estimate,
        "lower": lower,
        "upper": upper,
        "margin": margin,
        "verdict": "pass" if passed else "fail" if failed else "inconclusive",
        "note": "",
    }


def report(
    run: str, step: str, verdict: str | None, why: str, figures: Mapping[str, Any], status: str = "done"
) -> dict[str, Any]:
    """A step's report as `run.context.write_report` writes it."""
    head = {"schema": 1, "step": step, "run": run, "status": status, "code": "c0de" * 16}
    return {**head, "verdict": verdict, "why": why, "figures": dict(figures)}


def _nights(hostile: str) -> list[dict[str, Any]]:
    quiet = {
        "slices": dict.fromkeys(OLD, 40),
        "known": OLD,
        "outcome": "no_update",
        "drift": "quiet",
        "gate": None,
        "new": (),
        "why": "quiet: no known slice of 3 differs from what is known of it",
    }
    neon = {
        "slices": {NEON: 292},
        "known": OLD,
        "new": (NEON,),
        "outcome": "promoted",
        "drift": "drifted",
        "gate": "promote",
        "version": "v2",
        "why": "promote: all 10 checks passed; closest to its margin: red-pencil rose by 1.9 % in loss "
        "(margin 5 %); "
        "neon-ink gained 0.62 in fidelity (asked: 0.05)",
    }
    chalk = {
        "slices": {CHALK: 288},
        "known": (*OLD, NEON),
        "new": (CHALK,),
        "outcome": "promoted",
        "drift": "drifted",
        "gate": "promote",
        "version": "v3",
        "why": "promote: all 17 checks passed; closest to its margin: neon-ink fell by 0.021 in fidelity "
        "(margin 0.08); "
        "white-chalk gained 0.58 in fidelity (asked: 0.05)",
    }
    poison = {
        "slices": {"black-ink": 65},
        "known": (*OLD, NEON, CHALK),
        "new": (),
        "outcome": "held",
        "drift": "alarming",
        "gate": None,
        "quarantine": True,
        "why": "alarming: pictures of slice black-ink do not fit their captions (agreement: AUC 0.93, p 1e-05)",
    }
    bad = {
        "slices": {CHALK: 120},
        "known": (*OLD, NEON, CHALK),
        "new": (),
        "outcome": "rejected",
        "drift": "drifted",
        "gate": "reject",
        "spoiled": True,
        "why": "rejected: black-ink fell by 0.41 in fidelity (margin 0.08), blue-ink rose by 22 % in loss (margin 5 %)",
    }
    nights = [quiet, neon, chalk, poison, bad]
    for night in nights:
        night["why"] += hostile
        night["slices"] = {name + hostile: count for name, count in night["slices"].items()}
        night["known"], night["new"] = (tuple(n + hostile for n in night[key]) for key in ("known", "new"))
    return nights


def _write_branch(root: Path, line: Line, run: str, night: dict[str, Any], store: Path, hostile: str) -> None:
    git(root, "checkout", "-q", "-b", f"runs/{run}", "main")
    spec = {"id": run, "trigger": "schedule", "started": f"{run[:10]}T02:00:00+00:00"}
    _write_yaml(root / "run.yaml", spec)
    night["reports"] = {name: report(run, name, *parts) for name, parts in _reports(night, hostile).items()}
    night["stages"] = _stages(night, store, hostile)
    for name, document in night["reports"].items():
        write_json(root / "reports" / f"{name}.json", document)
    _write_yaml(root / "dvc.lock", {"schema": "2.0", "stages": night["stages"]})
    _commit(root, line, f"runs/{run}")
    night["tip"] = git(root, "rev-parse", "HEAD").decode().strip()


def _reports(night: dict[str, Any], hostile: str) -> dict[str, tuple[Any, ...]]:
    total = sum(night["slices"].values())
    counts = {
        n: {"train": int(c * 0.6), "probe": int(c * 0.1), "evaluation": c - int(c * 0.6) - int(c * 0.1)}
        for n, c in night["slices"].items()
    }
    quarantine = _quarantine(hostile) if night.get("quarantine") else []
    ingest = {
        "new": total,
        "duplicates": 3,
        "near_duplicates": 5,
        "known": 0,
        "quarantined": len(quarantine),
        "quarantine": quarantine,
        "intake": {"assets": total, "slices": night["slices"]},
        "batch": {"runs": ["r"], "assets": total, "slices": counts, "digest": "ab" * 32},
        "approved": None,
    }
    found: dict[str, tuple[Any, ...]] = {
        "ingest": ("ok", f"{total} new assets were taken in, {len(quarantine)} are in quarantine{hostile}", ingest),
        "drift": (
            night["drift"],
            night["why"] if not night["gate"] else f"drifted: first data of slice {CHALK}{hostile}",
            _drift(night),
        ),
    }
    if not night["gate"]:
        skipped = f"drift: {night['drift']}"
        return found | {name: (None, skipped, {}, "skipped") for name in ("update", "evaluate", "gate")}
    found["update"] = (None, f"1000 steps on {total} new and 300 replayed assets", {"steps": 1000, "loss_new": 0.1})
    found["evaluate"] = (None, "measured at 48 prompts a slice; the rule decided at look 1", _evaluate(night))
    found["gate"] = (night["gate"], night["why"], {"checks": _checks(night), "user_checks": {"passed": 2, "failed": 0}})
    return found


def _quarantine(hostile: str) -> list[dict[str, str]]:
    return [
        {"file": f"broken/half{hostile}.png", "code": "unreadable", "reason": f"the image ends too early{hostile}"},
        {"file": "broken/bomb.png", "code": "too_large", "reason": "30000 x 30000 pixels: more than max_pixels allows"},
        {"file": "notes/évil 名前.txt", "code": "not_an_image", "reason": "no format that is taken in"},
        {"file": "a" * 90 + ".png", "code": "no_caption", "reason": "metadata.jsonl has no line for it"},
    ]


def _drift(night: dict[str, Any]) -> dict[str, Any]:
    fresh, alarming = night["new"], night["drift"] == "alarming"
    slices = {}
    for place, name in enumerate(night["slices"]):
        auc = 0.99 if name in fresh else 0.83 if night["drift"] != "quiet" else 0.52 + 0.015 * place
        floor = None if name in fresh else {"auc": auc, "p_value": 0.4, "null_auc": 0.55, "floor": 0.6}
        p_value = None if name in fresh else 1e-5 if night["drift"] != "quiet" else 0.4 + 0.1 * place
        slices[name] = {
            "auc": auc,
            "p_value": p_value,
            "new": name in fresh,
            "drifted": night["drift"] != "quiet",
            "tonight": floor,
            "pending": floor,
        }
    fit = {"auc": 0.93 if alarming else 0.51, "p_value": 1e-5 if alarming else 0.5}
    return {
        "slices": slices,
        "agreement": dict.fromkeys(night["slices"], fit),
        "specificity": {},
        "tests": 6,
        "alarms": [night["why"]] if alarming else [],
    }


def _evaluate(night: dict[str, Any]) -> dict[str, Any]:
    age, spoiled = int(night.get("version", "v3")[1:]) - 1, 0.3 if night.get("spoiled") else 0.0
    slices: dict[str, Any] = {}
    for place, name in enumerate(night["known"]):
        base, loss = 0.93 - 0.012 * place, 0.11 + 0.01 * place
        slices[name] = {
            "fidelity": {
                "champion": base - 0.006 * (age - 1),
                "candidate": base - 0.006 * age - spoiled * (1 + 0.3 * place),
                "anchor": base,
            },
            "loss": {
                "champion": loss * (1 + 0.008 * (age - 1)),
                "candidate": loss * (1 + 0.008 * age + 0.5 * spoiled),
                "anchor": loss,
            },
            "kid": {"champion": 0.01, "candidate": 0.012 + spoiled},
        }
    for name in night["new"]:
        slices[name] = {
            "fidelity": {"champion": 0.25, "candidate": 0.87},
            "loss": {"champion": 0.31, "candidate": 0.14},
        }
    return {"slices": slices, "looks": 1, "seed_plan": age, "new_slices": list(night["new"])}


def _checks(night: dict[str, Any]) -> list[dict[str, Any]]:
    harm = 0.4 if night.get("spoiled") else 0.006
    found = []
    for place, name in enumerate(night["known"]):
        found.append(gate_check(name, "loss", 0.55 * harm + 0.004 * place, 0.012, 0.05))
        found.append(gate_check(name, "fidelity", harm * (1 - 0.2 * place), 0.025 + 0.004 * place, 0.08))
        found.append(
            gate_check(name, "kid", 0.002 * place, 0.045 if night.get("spoiled") and place == 2 else 0.01, 0.05)
        )
        found.append(gate_check(name, "fidelity", harm + 0.006, 0.03, 0.15, against="anchor"))
    found += [gate_check(name, "fidelity", 0.62, 0.06, 0.05, gain=True) for name in night["new"]]
    if night.get("spoiled"):
        found.append(
            gate_check(OLD[0], "diversity", 0.0, 0.1, 0.1)
            | {"estimate": None, "lower": None, "upper": None, "note": "the figures are missing"}
        )
    return found


def _stages(night: dict[str, Any], store: Path, hostile: str) -> dict[str, Any]:
    drift = {
        "plots.json": _plots(night),
        "evidently.html": b"<!doctype html><title>Evidently</title>",
        "features.parquet": b"x",
    }
    stages = {"drift": {"outs": [{"path": "tonight/drift/figures", **store_folder(store, drift)}]}}
    samples = _samples(night, hostile) if night["gate"] else {}
    stages["evaluate"] = {"outs": [{"path": "tonight/evaluation/samples", **store_folder(store, samples)}]}
    return stages


def _plots(night: dict[str, Any]) -> bytes:
    edges = np.linspace(0.0, 1.0, 25)
    slices: dict[str, Any] = {}
    for name in night["slices"]:
        for place, what in enumerate(("brightness", "contrast", "agreement", "specificity")):
            shift = 0.0 if night["drift"] == "quiet" else 0.06 * (place + 1)
            bells = [np.exp(-(((edges[:-1] - centre) / 0.12) ** 2)) for centre in (0.45, 0.45 + shift)]
            known, new = ((bell / bell.sum()).tolist() for bell in bells)
            histogram = {"edges": edges.tolist(), "reference": known, "batch": new}
            slices.setdefault(name, {})[what] = histogram
    return json.dumps({"slices": slices}).encode()


def _samples(night: dict[str, Any], hostile: str) -> dict[str, bytes]:
    document: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for number, name in enumerate((*night["known"], *night["new"])):
        style = name.removesuffix(hostile) if hostile else name
        prompts = [{"prompt": f"a {DIGITS[n % 4]} in {style}{hostile}", "seed": n} for n in range(PROMPTS)]
        document[name] = prompts
        for model, spoiled in (
            ("champion", 0.8 if name in night["new"] else 0.0),
            ("candidate", 0.5 if night.get("spoiled") else 0.03),
        ):
            files[f"grid-{name}-{model}.png"] = grid_png(style, number, spoiled)
    return files | {"prompts.json": json.dumps(document).encode()}


def _write_main(root: Path, nights: list[dict[str, Any]], hostile: str) -> None:
    record = {
        "schema": 1,
        "version": "v1",
        "parent": None,
        "run": None,
        "created": "2026-10-31T20:00:00+00:00",
        "slices": {n: {} for n in OLD},
    }
    write_json(root / "versions/v0001.json", whole_record(record))
    for run, night in zip(RUNS, nights, strict=True):
        write_json(
            root / f"events/{run[:10].replace('-', '')}T020500000000Z-run-{run}.json", _event(run, night, hostile)
        )
        if night.get("version"):
            number = int(night["version"][1:])
            write_json(
                root / f"versions/v{number:04d}.json", whole_record(_record(run, night, f"v{number - 1}", hostile))
            )
    answer = {
        "schema": 1,
        "kind": "answer",
        "run": RUNS[3],
        "answer": "no",
        "by": f"Ada{hostile}",
        "reason": f"that is noise{hostile}",
        "digest": "ab" * 32,
        "at": "2026-11-04T09:12:00+00:00",
        "through": "command line",
    }
    write_json(root / f"events/20261104T091200000000Z-answer-{RUNS[3]}.json", answer)
    write_json(
        root / "state/champion.json", {"version": "v3", "seed_plan": 3, "slices": [*OLD, NEON, CHALK], "anchors": {}}
    )


def _event(run: str, night: dict[str, Any], hostile: str) -> dict[str, Any]:
    ingest = night["reports"]["ingest"]["figures"]
    return {
        "schema": 1,
        "kind": "run",
        "run": run,
        "at": f"{run[:10]}T02:05:00+00:00",
        "outcome": night["outcome"],
        "why": night["why"],
        "trigger": {"kind": "schedule", "by": f"ops{hostile}", "reason": hostile, "set": {}, "force": False},
        "version": night.get("version"),
        "drift": night["drift"],
        "gate": night["gate"],
        "intake": {"md5": "d" * 32, "quarantined": ingest["quarantined"], **ingest["intake"]},
        "batch": {**ingest["batch"], "of": None},
        "base": "0" * 40,
        "tip": night["tip"],
        "seconds": 312.4 if night["gate"] else 21.0,
    }


def _record(run: str, night: dict[str, Any], parent: str, hostile: str) -> dict[str, Any]:
    figures = night["reports"]["evaluate"]["figures"]["slices"]
    return {
        "schema": 1,
        "version": night["version"],
        "parent": parent,
        "run": run,
        "created": f"{run[:10]}T02:05:00+00:00",
        "trigger": {"kind": "schedule", "by": "", "reason": hostile},
        "approval": None,
        "digests": {
            "batch": "ab" * 32,
            "teacher": "1" * 32,
            "base": "2" * 32,
            "state": {"adapter": "3" * 32, "replay": "4" * 32},
        },
        "stages": night["stages"],
        "parameters": {"file": {"name": "demo-line", "note": hostile}, "set": {}},
        "code": "c0de" * 16,
        "environment": {"python": "3.12.1", "torch": "2.13.0", "machine": f"x86_64{hostile}"},
        "reports": night["reports"],
        "slices": {n: {m: v["candidate"] for m, v in metrics.items()} for n, metrics in figures.items()},
        "seconds": 312.4,
    }


def _write_yaml(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(document), allow_unicode=True), encoding="utf-8")


def _commit(root: Path, line: Line, branch: str) -> None:
    git(root, "add", "--all")
    git(root, "commit", "-q", "-m", branch)
    git(root, "push", "-q", line.git, f"HEAD:refs/heads/{branch}")
