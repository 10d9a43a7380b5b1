"""The pages of lineage and changes: self-contained, escaped whole, and drawn right for few and for many versions."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cl_steps.commands.diff import diff
from cl_steps.commands.lineage import lineage
from cl_steps.report.timeline import LANE, LEFT, MOST, timeline
from tests.lines.explaining import Fabricated
from tests.report.fabricate import grid_png

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>{{7*7}} $\\alpha$ &amp;\x1b[31m'
LOADED = ("src", "href", "action", "data", "xlink:href")


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Fabricated:
    """A hostile line with a rollback, a withdrawal, and pictures of v3 and v6."""
    made = Fabricated(tmp_path_factory.mktemp("pages"), 1, HOSTILE)
    for _ in range(4):
        made.night()
    made.rollback("v3")
    made.night()
    for name in ("v3", "v6"):
        record = made.versions[name].record
        prompts = {"old" + HOSTILE: [{"prompt": f"a three{HOSTILE}", "seed": 1}] * 8}
        grids = {f"grid-old{HOSTILE}-{model}.png": grid_png("blue-ink", 1) for model in ("champion", "candidate")}
        folder = made.put_files({"prompts.json": json.dumps(prompts).encode(), **grids})
        record["stages"]["evaluate"] = {"deps": [], "outs": [{"path": "tonight/evaluation/samples", "md5": folder}]}
        made.write(f"versions/{name.replace('v', 'v000')}.json", record)
    made.withdraw([made.versions["v2"].batch["sha256"][0].as_py()])
    made.push()
    made.line.save(made.folder)
    return made


def pages(line: Fabricated, folder: Path) -> list[str]:
    found = []
    for version in ("v1", "v3", "v5", "champion"):
        lineage(version, str(line.folder), str(folder / "page.html"), False)
        found.append((folder / "page.html").read_text(encoding="utf-8"))
    for old, new in (("v3", "v6"), ("v1", "v3"), ("v5", "v6"), ("v6", "v3")):
        diff(old, new, str(line.folder), str(folder / "page.html"), False)
        found.append((folder / "page.html").read_text(encoding="utf-8"))
    return found


def test_nothing_is_loaded_run_or_taken_for_markup(line: Fabricated, tmp_path: Path) -> None:
    for page in pages(line, tmp_path):
        elements = Elements(page).found
        assert not {tag for tag, _ in elements} & {"script", "iframe", "object", "link", "form", "base"}
        assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
        for _, attributes in elements:
            assert all(str(attributes[key]).startswith(("data:image/", "#")) for key in LOADED if key in attributes)
        assert "default-src 'none'" in page
        assert "<script>alert" not in page
        assert "{{7*7}}" in page or "What made v1" in page
        assert "\x1b" not in page


def test_the_same_document_gives_the_same_page(line: Fabricated, tmp_path: Path) -> None:
    for _ in range(2):
        lineage("v6", str(line.folder), str(tmp_path / "page.html"), False)
        (tmp_path / "page.html").rename(tmp_path / f"{len(list(tmp_path.iterdir()))}.html")
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_pictures_of_parent_and_child_share_their_captions(line: Fabricated, tmp_path: Path) -> None:
    diff("v3", "v6", str(line.folder), str(tmp_path / "page.html"), False)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The same prompts and seeds, drawn when v6 was evaluated." in page
    assert page.count("data:image/png") == 2
    assert page.count('<ul class="captions">') == 1


def test_a_version_without_pictures_is_named(line: Fabricated, tmp_path: Path) -> None:
    diff("v1", "v3", str(line.folder), str(tmp_path / "page.html"), False)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Of v1 the store has no pictures." in page
    assert page.count("data:image/png") == 1


def line_of(parents: dict[int, int | None], champion: int, about: int, back: list[tuple[int, int]]) -> dict[str, Any]:
    """As much of a lineage document as the timeline needs."""
    chain, at = [], parents[about]
    while at is not None:
        chain.append(f"v{at}")
        at = parents[at]
    return {
        "version": f"v{about}",
        "champion": f"v{champion}",
        "chain": chain,
        "line": [{"version": f"v{n}", "parent": f"v{p}" if p else None, "base": "b"} for n, p in parents.items()],
        "rollbacks": [{"from": f"v{a}", "to": f"v{b}", "by": "Ada", "reason": "x"} for a, b in back],
    }


def test_branches_that_were_left_have_lanes_of_their_own() -> None:
    parents = {1: None, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 6}
    drawn = timeline(line_of(parents, champion=7, about=5, back=[(3, 2), (5, 4)]))
    lanes = {stop.version: (stop.x - LEFT) / LANE for stop in drawn.stops}
    assert lanes == {"v1": 0, "v2": 0, "v3": 1, "v4": 0, "v5": 1, "v6": 0, "v7": 0}
    kinds = {stop.version: stop.kind for stop in drawn.stops}
    assert kinds == {
        "v1": "parent", "v2": "parent", "v3": "left", "v4": "parent", "v5": "self", "v6": "other", "v7": "other",
    }  # fmt: skip
    assert [stop.version for stop in drawn.stops] == [f"v{n}" for n in range(7, 0, -1)]
    assert len(drawn.arcs) == 2
    assert len(drawn.paths) == 6


def test_two_branches_of_one_parent_do_not_cross() -> None:
    parents = {1: None, 2: 1, 3: 2, 4: 1, 5: 4, 6: 1}
    drawn = timeline(line_of(parents, champion=6, about=6, back=[(3, 1), (5, 1)]))
    lanes = {stop.version: (stop.x - LEFT) / LANE for stop in drawn.stops}
    assert lanes["v2"] == lanes["v3"]
    assert lanes["v4"] == lanes["v5"]
    assert len({lanes["v1"], lanes["v2"], lanes["v4"]}) == 3


@pytest.mark.parametrize("about", [1, 2, 40, 500, 999, 1000])
def test_of_a_thousand_versions_the_nearest_are_drawn(about: int) -> None:
    parents = {n: n - 1 or None for n in range(1, 1001)}
    drawn = timeline(line_of(parents, champion=1000, about=about, back=[]))
    shown = [int(stop.version[1:]) for stop in drawn.stops]
    assert len(shown) == len(set(shown)) == MOST
    assert {1, about} <= set(shown)
    assert drawn.left_out == 1000 - MOST
    numbers = [float(n) for path, _ in drawn.paths for n in re.findall(r"-?\d+(?:\.\d+)?", path)]
    assert max(numbers) <= drawn.height
