from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from importlib.resources import files
from itertools import pairwise

import pytest

from neurostorm_bids.page.html import (
    Link,
    embed_json,
    format_chart,
    format_facts,
    format_page,
    format_paragraphs,
    format_picture,
    format_section,
    format_table,
    format_warnings,
)

HOSTILE = "<script>alert('x')</script> & \"quoted\""


@pytest.mark.parametrize(
    "html",
    [
        format_paragraphs(HOSTILE),
        format_section(HOSTILE, "<p>part</p>"),
        format_warnings([HOSTILE]),
        format_facts({HOSTILE: HOSTILE}, label=HOSTILE),
        format_table([HOSTILE], [[HOSTILE]], caption=HOSTILE),
        format_table(["a"], [[Link(HOSTILE, HOSTILE)]], caption=HOSTILE, is_filterable=True),
        format_picture(b"", alt=HOSTILE, caption=HOSTILE),
        format_chart(b"", {HOSTILE: HOSTILE}, alt=HOSTILE, caption=HOSTILE),
        format_page(HOSTILE, [], footer=HOSTILE).replace("<script>\n//", ""),
    ],
)
def test_no_text_becomes_markup(html):
    assert "<script>" not in html
    assert '"quoted"' not in html
    assert "&lt;script&gt;" in html


def test_a_page_may_load_nothing():
    page = format_page("Title", [], footer="End")
    assert "default-src 'none'" in page
    assert not re.search(r"""https?://|@import|url\(|<link|src=(?!"data:)""", page)


def test_a_page_allows_its_own_scripts_and_no_others():
    page = format_page("Title", [], footer="End", scripts=["let own = '\u2713';"])
    scripts = re.findall(r"(?s)<script>(.*?)</script>", page)
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = re.search(r"script-src ([^;]*);", page)[1]
    assert allowed == " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)
    assert len(scripts) == 2


def test_a_script_that_would_end_early_is_refused():
    with pytest.raises(ValueError, match="no end of a script"):
        format_page("Title", [], footer="", scripts=["'</SCRIPT>'"])


def test_what_a_chart_reads_is_what_was_given_and_cannot_end_its_script():
    value = {"<!--": ["</script>", "a & b", "\u2028", 1.5, None]}
    text = embed_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028") & set(text)
    with pytest.raises(ValueError, match="not JSON compliant"):
        embed_json(math.nan)


def test_a_link_leads_to_a_file_beside_the_page_whatever_its_name():
    html = format_table(["Who"], [[Link("sub-01", 'sub-01?"#.html')]], caption="")
    assert '<a href="sub-01%3F%22%23.html">sub-01</a>' in html


def test_a_keyboard_can_scroll_every_table():
    rows = [[n] for n in range(100)]
    html = format_table(["n"], rows, caption="Numbers", is_filterable=True)
    assert 'class="scroll tall" tabindex="0" role="region" aria-label="Numbers"' in html
    for html in (
        format_table(["n"], rows[:3], caption="Few", is_filterable=True),
        format_table(["n"], rows, caption="Few"),
        format_table(["Few"], rows, caption=""),
        format_facts({"a": 1}, label="Few"),
    ):
        assert 'class="scroll" tabindex="0" role="group" aria-label="Few"' in html


def test_a_column_of_numbers_is_set_to_the_right_also_where_the_first_is_missing():
    html = format_table(["Name", "Value"], [["a", None], ["b", "n/a"], ["c", 2]], caption="")
    assert html.count('<td class="number"') == 3
    assert '<th scope="col" class="number">Value</th>' in html


def test_a_table_without_a_caption_has_no_empty_one():
    assert "caption" not in format_table(["n"], [[1]], caption="")


def test_a_picture_is_the_bytes_that_were_given():
    html = format_picture(b"\x89PNG bytes", alt="Dots", caption="Black dots.")
    encoded = re.search(r'src="data:image/png;base64,([^"]+)" alt="Dots"', html)[1]
    assert base64.b64decode(encoded) == b"\x89PNG bytes"


def test_no_warnings_make_no_box():
    assert format_warnings([]) == ""


def test_cells_can_be_sorted_by_their_exact_values():
    html = format_table(
        ["Name", "Value"],
        [["a", 0.123456789], ["b", math.nan], ["c", 20000], ["d", None]],
        caption="",
        is_sortable=True,
    )
    cells = re.findall(r'<td class="number" data-value="([^"]*)">([^<]*)</td>', html)
    assert cells == [("0.123456789", "0.1235"), ("", "n/a"), ("20000", "20,000"), ("", "n/a")]
    assert 'class="sortable"' in html


def test_heads_and_names_of_rows_say_what_they_head():
    html = format_table(["Name", "Value"], [["a", 1]], caption="Values")
    assert html.count('scope="col"') == 2
    assert html.count('scope="row"') == 1
    assert "<caption>Values</caption>" in html
    assert "sortable" not in html


def test_values_are_told_in_words():
    facts = {"a": None, "b": True, "c": (4, 4.0, "x"), "d": (), "e": 1e-5, "f": "text"}
    found = re.findall(r"<td>([^<]*)</td>", format_facts(facts, label="Facts"))
    assert found == ["not set", "yes", "4, 4, x", "none", "1e-05", "text"]


def test_all_text_stands_out_from_its_background():
    style = (files("neurostorm_bids") / "data" / "report.css").read_text(encoding="utf-8")
    backgrounds = {"white": "#ffffff"}
    colours = []
    for selector, rule in re.findall(r"([^{}]+)\{([^{}]*)\}", style):
        background = re.search(r"background: (#\w+)", rule)
        if background:
            backgrounds[selector.strip()] = background[1]
        colours += re.findall(r"(?<![-\w])color: (#\w+)", rule)
    assert len(colours) >= 4
    for colour in colours:
        assert measure_contrast(colour, "#ffffff") >= 4.5
    boxed = re.search(r"\.warnings \{[^}]*\bcolor: (#\w+)", style)[1]
    assert measure_contrast(boxed, backgrounds[".warnings"]) >= 4.5


def measure_contrast(one, other):
    """Return the contrast ratio of two colours, as the accessibility guidelines define it."""
    light, dark = sorted((find_luminance(one), find_luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def find_luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    values = [int(a + b, 16) / 255 for a, b in list(pairwise(digits))[::2]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_measure_of_contrast_is_right():
    assert measure_contrast("#000", "#ffffff") == pytest.approx(21)
    assert measure_contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
