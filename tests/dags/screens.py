"""The pictures of `dags/README.md`, from a real browser: `python tests/dags/screens.py SCRATCH dags/images`.

Needs `pip install playwright` and a Chromium in /usr/bin. It plays stub nights in a scratch folder, gives their line
the page of a fabricated one, serves it as `make airflow` does, signs in, and looks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "report")]
SITE = "http://localhost:8099"
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
LEARN = {"ingest": "ok", "drift": "drifted"}
NIGHTS = ({"ingest": "ok", "drift": "quiet"}, {**LEARN, "gate": "promote"}, {**LEARN, "gate": "reject"})
SECOND = "scheduled__2026-01-02T00:00:00+00:00"


def main(scratch: Path, images: Path) -> None:
    """All pictures, anew."""
    shutil.rmtree(scratch, ignore_errors=True)
    play(scratch / "demo-line")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "RETAIN"))}
    command = [
        sys.executable,
        "-m",
        "cl_steps.orchestration.serve",
        str(scratch / "demo-line"),
        "--port",
        SITE.rpartition(":")[2],
    ]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as served:
        try:
            look(images, password(served), scratch / "demo-line" / ".retain" / "lines.yaml")
        finally:
            served.send_signal(signal.SIGINT)
            served.wait(90)


def play(workspace: Path) -> None:
    """A few nights of stubs under the line's DAG, and the page of the fabricated line."""
    from cl_steps.operations.page import write_report
    from cl_steps.orchestration import play
    from tests.dags.conftest import Silent, make_line
    from tests.dags.stub import StubChild
    from tests.report.fabricate import fabricate

    (workspace / "landing").mkdir(parents=True)
    make_line(workspace)
    lines = workspace / ".retain" / "lines.yaml"
    entry = {"name": "demo", "workspace": str(workspace), "retry_seconds": 0}
    lines.write_text(yaml.safe_dump({"lines": [entry]}), encoding="utf-8")
    player = play.Player.open(workspace / ".retain" / "airflow", lines, "demo", Silent())
    from cl_steps.orchestration import runners

    class Child(StubChild):
        """A stub also of `retain report`."""

        def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
            self._step = arguments[0] == "step"
            if self._step:
                super().__init__(arguments, env)

        def run(self) -> tuple[int, str]:
            """One step, or nothing."""
            return super().run() if self._step else (0, "the page is made below")

    runners.Child = Child  # type: ignore[assignment, misc]
    for day, night in enumerate(NIGHTS, start=1):
        (workspace / "scenario.json").write_text(json.dumps(night), encoding="utf-8")
        assert player.play("scheduled", datetime(2026, 1, day, tzinfo=UTC), {}), night
    write_report(fabricate(workspace / ".retain" / "fabricated"), workspace / "reports")


def password(served: subprocess.Popen[str]) -> str:
    """The admin's, out of what `make airflow` prints once it is ready."""
    found = ""
    for said in served.stdout or ():
        match = re.match(r"  admin +(\S+)", said)
        found = match[1] if match else found
        if "Ctrl+C" in said:
            return found
    raise SystemExit("Airflow did not start")


def look(images: Path, secret: str, lines: Path) -> None:
    """Sign in through Airflow's own form, and take the pictures; the last one of `lines.yaml` with bad entries."""
    from playwright.sync_api import sync_playwright

    images.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS).new_page()
        page.goto(f"{SITE}/auth/login")
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", secret)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r":\d+/(?!auth)"))
        for name, width, height, scheme, prepare in (
            ("tab", 1360, 1000, "light", tab), ("tab-dark", 1360, 1000, "dark", tab),
            ("form", 1120, 1420, "light", form), ("graph", 1080, 1180, "light", graph),
            ("broken", 1080, 640, "light", partial(broken, lines=lines)),
        ):  # fmt: skip
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            prepare(page)
            page.wait_for_timeout(1500)
            page.screenshot(path=images / f"{name}.png")
            with Image.open(images / f"{name}.png") as picture:
                picture.convert("RGB").quantize(128).save(images / f"{name}.png", optimize=True)


def tab(page: Any) -> None:
    """The tab, reached as a person would."""
    page.goto(f"{SITE}/dags/retain_demo")
    page.get_by_role("link", name="Retain", exact=True).click()
    page.frame_locator("iframe").get_by_text("Nights at a glance").wait_for()


def form(page: Any) -> None:
    """The trigger form, filled in for a comparison."""
    page.goto(f"{SITE}/dags/retain_demo")
    page.get_by_role("button", name="Trigger").first.click()
    page.locator("label").filter(has=page.locator("[name=element_force]")).click()
    page.locator("#element_method").click()
    page.get_by_role("option", name="finetune").click()
    page.fill("#element_batch", "2026-01-02-1a2b3c4d")
    page.fill("#element_reason", "what would plain fine-tuning do?")


def graph(page: Any) -> None:
    """The graph after a night that promoted, from top to bottom."""
    page.goto(f"{SITE}/dags/retain_demo/runs/{SECOND}")
    page.get_by_role("button", name="Show Graph").click()
    page.get_by_role("button", name="Options").first.click()
    page.locator("button:has-text('Left to Right')").click()
    page.get_by_role("option", name="Top to Bottom").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Collapse Details Panel").click()
    page.get_by_role("button", name="Fit View").click()


def broken(page: Any, lines: Path) -> None:
    """What ops see of bad entries: the import error that names each, opened."""
    wrong = [{"name": "berlin", "workspace": "/srv/berlin", "timezone": "Europe/Berln"},
             {"name": "never", "workspace": "/srv/never", "schedule": "0 2 31 2 *"}]  # fmt: skip
    good = yaml.safe_load(lines.read_text(encoding="utf-8"))["lines"]
    lines.write_text(yaml.safe_dump({"lines": [*good, *wrong]}), encoding="utf-8")
    page.goto(f"{SITE}/")
    errors = page.get_by_text("Dag Import Error")
    while not errors.count():
        page.wait_for_timeout(3000)
        page.reload(wait_until="networkidle")
    errors.first.click()
    page.get_by_text("broken_lines.py").first.click()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
