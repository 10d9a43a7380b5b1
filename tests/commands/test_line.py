"""A line's life by its commands, in order: init, nights, answers, pictures, export."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cl_steps.demo.nights import write_night
from cl_steps.models.lora import read_adapter
from cl_steps.repository.git import text
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import Change, reading
from tests.commands.conftest import Cli

RUNS: dict[str, str] = {}


def ask(cli: Cli, *words: object) -> dict[str, Any]:
    code, printed, _ = cli(*words, "--json")
    assert code == 0
    return dict(json.loads(printed))


def test_a_new_line_is_at_v1_and_knows_its_slices(line: Path, cli: Cli) -> None:
    found = ask(cli, "versions", line)
    assert found["champion"] == "v1"
    assert set(found["versions"][0]["slices"]) == {"black-ink", "blue-ink", "sepia-ink"}
    assert ask(cli, "runs", line) == {"runs": []}
    status = subprocess.run(["git", "-C", str(line), "status", "--porcelain"], capture_output=True, check=True)
    assert status.stdout == b""


def test_a_folder_that_is_taken_is_refused(line: Path, cli: Cli) -> None:
    assert cli("init", line)[0] == 2


@pytest.mark.parametrize("command", ["status", "versions", "runs", "night", "report"])
def test_what_is_no_workspace_is_said(tmp_path: Path, cli: Cli, command: str) -> None:
    code, _, said = cli(command, tmp_path)
    assert code == 2
    assert "retain init" in said


def test_a_base_that_is_no_pipeline_leaves_nothing_behind(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "base").mkdir()
    code, _, said = cli("init", tmp_path / "line", "--base", tmp_path / "base", "--extractor", tmp_path / "base")
    assert code == 2
    assert "diffusers" in said
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_changes_that_a_run_would_not_see_are_refused(line: Path, cli: Cli) -> None:
    content = (line / "params.yaml").read_text()
    (line / "params.yaml").write_text(content + "# edited\n")
    code, _, said = cli("night", line)
    (line / "params.yaml").write_text(content)
    assert code == 2
    assert "params.yaml" in said


def test_a_run_does_not_set_its_own_judge(line: Path, cli: Cli) -> None:
    code, _, said = cli("night", line, "--set", "gate.min_gain=0")
    assert code == 2
    assert "gate.min_gain" in said


def test_more_of_the_same_is_no_update(line: Path, cli: Cli) -> None:
    code, _, said = cli("night", line)
    assert code == 10, said
    [run] = ask(cli, "runs", line)["runs"]
    assert (run["drift"], run["gate"], run["outcome"], run["version"]) == ("quiet", None, "no_update", None)
    assert ask(cli, "status", line)["pending"]["assets"] == 120
    assert (line / "reports" / "night.html").is_file()


def test_a_forced_run_stops_where_asked_and_goes_on_to_its_promotion(line: Path, cli: Cli) -> None:
    code, printed, _ = cli("night", line, "--force", "--reason", "a test", "--until", "update")
    assert code == 0
    run = printed.split()[1]
    assert ask(cli, "runs", line)["runs"][-1]["outcome"] == "running"
    code, printed, _ = cli("night", line, "--run", run, "--no-promote")
    assert code == 0
    assert "waits before its promotion" in printed
    assert ask(cli, "versions", line)["champion"] == "v1"
    code, printed, said = cli("night", line, "--run", run)
    assert code == 0, said
    found = ask(cli, "versions", line)
    assert found["champion"] == "v2"
    assert found["versions"][1]["parent"] == "v1"
    assert set(found["versions"][1]["slices"]["black-ink"]) >= {"loss", "fidelity", "kid"}
    assert ask(cli, "status", line)["pending"]["assets"] == 0
    RUNS["promoted"] = run


def test_the_checkout_follows_main(line: Path) -> None:
    assert json.loads((line / "state" / "champion.json").read_text())["version"] == "v2"
    tracked = (line / "state" / "replay.dvc").read_text()
    assert (line / "state" / "replay" / "manifest.parquet").is_file()
    assert "md5" in tracked


def test_a_candidate_that_learnt_nothing_new_is_rejected(line: Path, cli: Cli) -> None:
    write_night(line / "landing" / "night-2", 2, 0)
    code, _, said = cli("night", line)
    assert code == 12, said
    assert "neon-ink" in said
    assert ask(cli, "status", line)["pending"]["assets"] == 300


def test_poison_is_held_and_leaves_the_next_batch_alone(line: Path, cli: Cli) -> None:
    shutil.rmtree(line / "landing" / "night-2")
    write_night(line / "landing" / "night-4", 4, 0)
    run = cli("night", line, "--until", "ingest")[1].split()[1]
    assert cli("night", line, "--run", run)[0] == 11
    status = ask(cli, "status", line)
    assert status["held"] == [run]
    assert run in status["set_aside"]
    assert run not in status["pending"]["runs"]
    RUNS["held"] = run


def test_a_held_run_is_answered_once_with_a_reason(line: Path, cli: Cli) -> None:
    run = RUNS["held"]
    assert cli("refuse", run, "--dir", line, "--reason", " ")[0] == 2
    hostile = "<script>$(touch owned)\n\nRun-Id: forged"
    assert cli("refuse", run, "--dir", line, "--reason", hostile)[0] == 0
    code, _, said = cli("approve", run, "--dir", line, "--reason", "changed my mind")
    assert code == 2
    assert "answered already" in said
    assert ask(cli, "status", line)["held"] == []
    assert "forged" not in text(line / ".retain" / "git", "log", "--format=%B", "main")
    assert cli("approve", RUNS["promoted"], "--dir", line, "--reason", "x")[0] == 2


def test_pictures_of_a_version(line: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "s.png"
    assert cli("sample", "a handwritten three in blue ink", "--dir", line, "--out", out, "--count", 3)[0] == 0
    assert "its end is cut" in cli("sample", "a three " * 20, "--dir", line, "--out", out, "--count", 1)[2]
    assert out.read_bytes().startswith(b"\x89PNG")
    assert cli("sample", "x", "--dir", line, "--version", "v9", "--out", out)[0] == 2


PLAIN = """
import sys
sys.modules["cl_steps"] = None
import numpy as np, torch
from diffusers import StableDiffusionPipeline
torch.set_num_threads(1)
parts = StableDiffusionPipeline.from_pretrained(sys.argv[1] + "/parts", safety_checker=None)
parts.load_lora_weights(sys.argv[1] + "/parts", weight_name="pytorch_lora_weights.safetensors")
merged = StableDiffusionPipeline.from_pretrained(sys.argv[1] + "/merged", safety_checker=None)
def draw(pipe):
    return pipe("two", num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(0)).images
print(float(np.abs(draw(parts) - draw(merged)).max()))
"""


def test_an_export_needs_nothing_of_ours(line: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "v2", tmp_path / "parts", "--dir", line)[0] == 0
    assert cli("export", "champion", tmp_path / "merged", "--dir", line, "--merged")[0] == 0
    assert cli("export", "v2", tmp_path / "parts", "--dir", line)[0] == 2
    done = subprocess.run([sys.executable, "-c", PLAIN, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-3


def test_an_export_for_comfyui_is_the_lora_alone(line: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "v2", tmp_path / "out", "--dir", line, "--format", "comfyui", "--merged")[0] == 2
    assert cli("export", "v2", tmp_path / "out", "--dir", line, "--format", "comfyui")[0] == 0
    own, theirs = read_adapter(line / "state/adapter"), load_file(tmp_path / "out/out.safetensors")
    assert len(theirs) == len(own.weights) * 3 // 2
    for name, weight in own.weights.items():
        layer, _, side = name.removeprefix("unet.").removesuffix(".weight").rpartition(".lora_")
        flat = f"lora_unet_{layer.replace('.', '_')}"
        assert torch.equal(theirs[f"{flat}.lora_{'down' if side == 'A' else 'up'}.weight"], weight)
        assert float(theirs[f"{flat}.alpha"]) == own.lora.alpha
    assert "Put `out.safetensors` where ComfyUI" in (tmp_path / "out/README.md").read_text()
    assert "adapter for ComfyUI" in (tmp_path / "out/bom.cdx.json").read_text()
    assert not (tmp_path / "out/unet").exists()


def set_aside_what_was_rejected(line: Path) -> None:
    """One attempt is enough from here on: a rule of the line, which a run may not set for itself."""
    with reading(resolve(str(line)).git) as main:
        params = yaml.safe_load(main.read("params.yaml") or b"")
        params["ingest"]["max_attempts"] = 1
        assert main.push(Change({"params.yaml": yaml.safe_dump(params).encode()}, "one attempt"))


def test_a_landing_of_nonsense_alone_is_no_usable_data(line: Path, cli: Cli) -> None:
    set_aside_what_was_rejected(line)
    for night in (line / "landing").iterdir():
        shutil.rmtree(night)
    (line / "landing" / "picture.png").write_text("no picture")
    code, _, said = cli("night", line)
    assert code == 3, said
    assert "quarantined" in said


def test_an_empty_landing_is_nothing_to_do_and_a_missing_one_is_said(line: Path, cli: Cli) -> None:
    (line / "landing" / "picture.png").unlink()
    assert cli("night", line)[0] == 10
    (line / "landing").rmdir()
    code, _, said = cli("night", line)
    assert code == 3
    assert "is not there" in said
