"""The group report in a browser: it draws, sorts and filters, and asks the network for nothing."""

from __future__ import annotations

import re

import pytest

from neurostorm_bids.group.level import run_group_level
from tests.browser import find_chromium, open_browser
from tests.unit.group.conftest import Study

needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed.")

EVIL = "</script><script>alert(1)</script><img/src=x/onerror=alert(2)>"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report on six people of whom one moved, with labels that a stranger made up."""
    study = Study(tmp_path_factory.mktemp("study"))
    study.tell(
        f"participant_id age sex {EVIL}",
        *(f"sub-0{n} {20 + 7 * n} {'FM'[n % 2]} {EVIL}{n % 2}" for n in range(6)),
    )
    for n in range(6):
        for session in "AB":
            run = f"sub-0{n}_ses-{session}_task-rest"
            moved = 3.0 if n == 4 and session == "B" else 0.1 + 0.01 * n
            vector = [n, n * n, len(session), n % 2]
            study.add(run, embedding=vector, value=30.0 - n + ord(session) / 50, fd=moved)
            study.add(run, probabilities=(0.3 + 0.1 * (n % 2), 0.7 - 0.1 * (n % 2)))
    (study.output / "sub-04.html").write_text("<title>Participant 04</title>")
    assert run_group_level(study.options(colour_by=(EVIL,))) == 0
    return study.output / "group.html"


@pytest.fixture(scope="module")
def browser():
    with open_browser() as page:
        yield page


@pytest.fixture
def page(report, browser):
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(report)
    browser.run(SCROLL)
    return browser


SCROLL = """
(async () => {
  for (const figure of document.querySelectorAll("figure.chart")) {
    figure.scrollIntoView();
    while (!figure.querySelector(".main-svg")) {
      await new Promise((done) => setTimeout(done, 20));
    }
  }
})()
"""
TABLE = """
[...document.querySelectorAll("section")]
  .find((one) => one.querySelector("h2").textContent === "Participants").querySelector("table")
"""
NAMES = (
    f"[...{TABLE}.tBodies[0].rows].filter((row) => !row.hidden).map((r) => r.cells[0].innerText)"
)
HEADS = f"[...{TABLE}.tHead.rows[0].cells]"


@needs_chromium
def test_every_chart_is_drawn_without_complaint_and_without_the_network(page):
    assert page.run("document.querySelectorAll('figure.chart').length") == 6
    drawn = "[...document.querySelectorAll('.plot')].every((one) => one.querySelector('.main-svg'))"
    assert page.run(drawn)
    assert page.run("[...document.images].every((one) => one.offsetParent === null)")
    assert page.complaints == []
    assert page.requests == []


@needs_chromium
def test_the_page_may_not_ask_the_network_even_if_it_wanted_to(page):
    asked = "fetch('http://127.0.0.1:9/').then(() => 'answered', () => 'refused')"
    assert page.run(asked) == "refused"
    assert "Content Security Policy" in " ".join(page.complaints)


@needs_chromium
def test_nothing_that_a_stranger_wrote_runs_and_all_of_it_is_shown(page):
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
    options = page.run("[...document.querySelector('select').options].map((one) => one.text)")
    assert options[0] == EVIL
    legend = page.run("[...document.querySelectorAll('.legendtext')].map((one) => one.textContent)")
    assert f"{EVIL}1" in legend


@needs_chromium
def test_a_click_and_a_key_sort_the_table(page):
    first = page.run(NAMES)
    assert first == [f"sub-0{n}" for n in range(6)]
    place = page.run(f"{HEADS}.findIndex((one) => one.innerText.startsWith('Mean FD'))")
    page.run(f"{HEADS}[{place}].querySelector('button').click()")
    assert page.run(NAMES)[-1] == "sub-04"
    assert page.run(f"{HEADS}[{place}].getAttribute('aria-sort')") == "ascending"
    page.run(f"{HEADS}[{place}].querySelector('button').focus()")
    page.press("Enter", 13, "\r")
    assert page.run(NAMES)[0] == "sub-04"
    assert page.run(f"{HEADS}.filter((one) => one.hasAttribute('aria-sort')).length") == 1
    assert page.run(f"{HEADS}[{place}].getAttribute('aria-sort')") == "descending"


@needs_chromium
def test_a_text_filters_the_table_and_it_is_said_how_many_are_left(page):
    field = f"{TABLE}.closest('section').querySelector('input[type=search]')"
    page.run(f"{{ const f = {field}; f.value = 'SUB-02'; f.dispatchEvent(new Event('input')); }}")
    assert page.run(NAMES) == ["sub-02"]
    assert page.run(f"{field}.closest('p').querySelector('[role=status]').textContent") == (
        "1 of 6 rows"
    )


@needs_chromium
def test_the_selector_colours_the_map_by_another_column(page):
    changed = """
    (async () => {
      const select = document.querySelector("select");
      select.value = [...select.options].findIndex((one) => one.text === "session");
      select.dispatchEvent(new Event("change"));
      await new Promise((done) => setTimeout(done, 200));
      const plot = select.closest("figure").querySelector(".plot");
      const shown = plot.data.filter((one) => one.visible !== false);
      return shown.map((one) => [one.name, one.x.length]);
    })()
    """
    assert page.run(changed) == [["A", 6], ["B", 6]]


@needs_chromium
def test_on_paper_there_are_the_pictures(page):
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        hidden = page.run("[...document.images].filter((one) => one.offsetParent === null).length")
        plots = page.run(
            "[...document.querySelectorAll('.plot')].filter((one) => one.offsetParent).length"
        )
    finally:
        page.call("Emulation.setEmulatedMedia", media="")
    assert (hidden, plots) == (0, 0)


@needs_chromium
def test_without_scripts_there_are_the_pictures_and_the_tables(report, browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report)
        text = browser.run("document.body.innerText")
        shown = browser.run("[...document.images].filter((one) => one.offsetParent).length")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "Scripts are off" in text
    assert shown == 6


def test_links_lead_to_files_that_are_there(report):
    markup = re.sub(r"(?s)<script.*?</script>", "", report.read_text())
    links = set(re.findall(r'href="([^"]*)"', markup))
    assert links == {"sub-04.html"}
    assert all((report.parent / link).is_file() for link in links)


def test_plotly_is_there_once_and_no_text_ends_a_script(report):
    page = report.read_text()
    assert page.count("plotly.js v") == 1
    assert "alert(1)</script>" not in page.lower()
    n_scripts = len(
        re.findall(r"<script[ >]", re.sub(r"(?s)(<script>).*?(</script>)", r"\1\2", page))
    )
    assert n_scripts == 3 + 6


def test_two_calls_write_the_same_page(report):
    before = report.read_bytes()
    options = Study.__new__(Study)
    options.source, options.output = report.parent.parent / "fmriprep", report.parent
    assert run_group_level(options.options(colour_by=(EVIL,))) == 0
    assert report.read_bytes() == before
