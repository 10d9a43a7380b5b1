"""The page: nothing hostile gets through, nothing is loaded, the same overview is the same page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cl_steps.operations.page import write_report
from cl_steps.report.collect import collect
from cl_steps.report.overview import Overview
from cl_steps.report.page import evidently_files, render
from cl_steps.repository.line import Line

TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "header",
    "footer",
    "section",
    "figure",
    "figcaption",
    "div",
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "a",
    "code",
    "pre",
    "span",
    "strong",
    "dl",
    "dt",
    "dd",
    "ol",
    "ul",
    "li",
    "details",
    "summary",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "img",
    "svg",
    "g",
    "path",
    "defs",
    "clippath",
    "rect",
    "use",
    "text",
    "tspan",
}
EMPTY = {"meta", "img"}


class Page(HTMLParser):
    """Every element with its attributes, and the text, of a page whose elements close as they should."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def html(overview: Overview) -> str:
    return render(overview)


@pytest.fixture(scope="module")
def hostile(hostile_line: Line) -> Page:
    return Page(render(collect(hostile_line, nights_with_pictures=20)))


def test_hostile_texts_stay_texts(hostile: Page) -> None:
    assert {tag for tag, _ in hostile.elements} <= TAGS
    assert "".join(hostile.words).count("<script>alert(1)</script>") > 30
    assert not any(name.startswith("on") for _, attributes in hostile.elements for name in attributes)
    assert not any("49" in word for word in hostile.words if "alert" in word)


def test_nothing_is_loaded_and_no_link_leads_away(hostile: Page) -> None:
    for tag, attributes in hostile.elements:
        assert (attributes.get("src") or "data:image/").startswith("data:image/"), tag
        link = attributes.get("href") or attributes.get("xlink:href") or "#"
        assert re.fullmatch(r"#[\w-]*|evidently-[a-z0-9-]+\.html", link), link


def test_the_policy_forbids_scripts(hostile: Page) -> None:
    policies = [a["content"] for tag, a in hostile.elements if a.get("http-equiv") == "Content-Security-Policy"]
    strict = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert policies == [strict]


def test_ids_are_unique_and_every_reference_has_its_target(html: str) -> None:
    ids = [a["id"] for _, a in Page(html).elements if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'(?:href="#|url\(#|labelledby=")([\w-]+)', html)
    assert wanted
    assert set(wanted) <= set(ids)


def test_every_picture_and_plot_says_what_it_is(html: str) -> None:
    elements = Page(html).elements
    assert all(a.get("alt") for tag, a in elements if tag == "img")
    assert all(a.get("role") == "img" and a.get("aria-label") for tag, a in elements if tag == "svg")
    assert sum(tag == "svg" for tag, _ in elements) >= 8


def test_the_same_story_is_the_same_page(overview: Overview, html: str) -> None:
    assert render(overview) == html


def test_latest_first_and_only_the_latest_in_detail(overview: Overview) -> None:
    html = render(overview, detailed=2)
    assert re.findall(r'<section class="night" id="night-(\d)"', html) == ["5", "4"]
    assert [int(n) for n in re.findall(r">Night (\d)(?:</a>)?<span", html)] == [5, 4, 3, 2, 1]
    assert 'href="#night-3"' not in html


def test_a_line_without_nights_has_a_page(overview: Overview) -> None:
    html = render(replace(overview, nights=(), versions=overview.versions[:1], champion="v1"))
    assert "No night yet" in html
    assert "<svg" not in html


def test_the_page_is_written_with_its_evidently_reports(line: Line, tmp_path: Path, overview: Overview) -> None:
    page = write_report(line, tmp_path / "reports")
    assert page == tmp_path / "reports" / "night.html"
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"night.html", *evidently_files(overview)}
    assert len(names) == 6
    linked = set(re.findall(r'href="(evidently[^"]+)"', page.read_text(encoding="utf-8")))
    assert linked == names - {"night.html"}
