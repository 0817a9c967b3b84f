"""The page that a play leaves behind, made from what was once read back (`recorded.json`)."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import date, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from demo import report
from demo.scenario import Scenario
from demo.summary import Summary
from shared.cloudevents import Envelope
from tests.support import uid

HERE = Path(__file__).resolve().parent
SCENARIO = Scenario.read(HERE.parents[1] / "scenarios" / "pkp-2022-iii.yaml")
OPENED_ALONE = {"meta", "rect", "line", "br"}


def fact(day: str, source: str) -> Envelope:
    noon = datetime.fromisoformat(day + "T12:00").replace(tzinfo=SCENARIO.zone)
    nothing = dict.fromkeys(("correlationid", "causationid", "authtype", "authid", "traceparent"))
    return Envelope(uid(1), "t", source, "s", 1, noon, noon, "k", agencyid="-", **nothing)


def recorded() -> Summary:
    kept = json.loads((HERE / "recorded.json").read_text())
    return Summary(
        lines=[(name, value) for name, value in kept["lines"]],
        failed=kept["failed"],
        sessions=kept["sessions"],
        events=[fact(day, source) for day, source, count in kept["events"] for _ in range(count)],
        digest=kept["digest"],
        facts=[(datetime.fromisoformat(at), type, module) for at, type, module in kept["facts"]],
    )


class Page(HTMLParser):
    """The page as a reader takes it in: its elements, and whether each is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.titles: list[str] = []
        self.cells: dict[str, str] = {}
        self.open: list[str] = []
        self._row: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in OPENED_ALONE:
            self.open.append(tag)
        if tag == "tr":
            self._row = []
        if tag in ("th", "td"):
            self._row.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in OPENED_ALONE:
            return
        assert self.open.pop() == tag
        if tag == "tr" and len(self._row) == 2:
            self.cells[self._row[0]] = self._row[1]

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "title" and "svg" in self.open:
            self.titles.append(data)
        if self.open and self.open[-1] in ("th", "td"):
            self._row[-1] += data


@pytest.fixture
def text(tmp_path: Path) -> str:
    report.write(SCENARIO, recorded(), tmp_path / "new" / "report.html")
    return (tmp_path / "new" / "report.html").read_text()


@pytest.fixture
def page(text: str) -> Page:
    page = Page(text)
    page.close()
    return page


def test_every_element_is_closed(page: Page) -> None:
    assert page.open == []


def test_the_page_needs_nothing_else(text: str, page: Page) -> None:
    assert not {name for name, _ in page.attributes} & {"src", "href", "srcset", "data", "action"}
    assert not page.found.keys() & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?://|@import|url\(", text)


def test_it_follows_the_readers_light_or_dark_and_speaks_to_a_screen_reader(text: str, page: Page) -> None:
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text
    assert ("lang", "en") in page.attributes
    assert page.found["svg"] == sum(name == "aria-label" for name, _ in page.attributes) == 2
    assert page.found["figcaption"] == page.found["figure"] == 2
    assert page.found["h1"] == page.found["main"] == 1


def test_on_a_telephone_only_the_figures_scroll_sideways(text: str) -> None:
    outside = re.sub(r"<figure>.*?</figure>", "", text, flags=re.S)
    style = dict(re.findall(r"([^{};]+) \{ ([^}]*)\}", outside[outside.index("<style>") : outside.index("</style>")]))
    style = {selector.strip(): rules for selector, rules in style.items()}
    assert "overflow-x: auto" in style["figure"] and "<svg" not in outside and 'class="numbers"' not in outside
    fixed = {s: float(w) for s, rules in style.items() for w in re.findall(r"(?:^|[ -])width: ([\d.]+)rem", rules)}
    assert {s for s, width in fixed.items() if width > 10 and "max-width" not in style[s]} == {"svg"}
    assert "overflow-wrap: anywhere" in style["table"]


def test_the_picture_has_every_day_of_the_17_weeks_once(page: Page) -> None:
    cohort = SCENARIO.cohort
    days = [t for t in page.titles if re.match(r"(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day ", t)]
    assert len(days) == len({title.split(":")[0] for title in days}) == 17 * 7
    assert days[0].startswith(f"{cohort.starts_on.value:%A %d %B}")


def test_the_days_carry_the_hours_of_the_sessions_of_one_group(page: Page) -> None:
    hours: Counter[str] = Counter()
    for title in page.titles:
        if found := re.search(r": (\d+) JP (distance|classical)$", title):
            hours[found[2]] += int(found[1])
    assert hours == {"distance": 126, "classical": 40}


def test_closed_weekdays_and_the_workplace_stage_are_told_apart(page: Page) -> None:
    closed = [title for title in page.titles if title.endswith(": closed")]
    workplace = [title for title in page.titles if title.endswith(": workplace stage")]
    assert {"Monday 28 February: closed", "Thursday 03 March: closed"} <= set(closed)
    first, last = date(2022, 4, 14), date(2022, 6, 12)
    assert workplace[0].startswith(f"{first:%A %d %B}")
    assert (
        len(workplace) + len([t for t in closed if "February" not in t and "March" not in t]) == (last - first).days + 1
    )


def test_the_bars_show_each_event_once(page: Page) -> None:
    bars: Counter[str] = Counter()
    for title in page.titles:
        if found := re.fullmatch(r"\d\d \w+: (\w+) (\d+)", title):
            bars[found[1]] += int(found[2])
    sources = Counter(e.source.removeprefix("/training/").removesuffix("-restricted") for e in recorded().events)
    assert bars == sources
    assert bars.total() == 3860


def test_every_line_that_was_read_back_stands_in_the_table(page: Page) -> None:
    lines = dict(recorded().lines)
    assert lines.items() <= page.cells.items()
    assert page.cells["composition"] == "37 participants = 21 Kementerian + 14 LPNK and LTN + 2 Pemda"


def test_the_page_says_what_is_fact_and_what_is_invented(page: Page) -> None:
    assert page.cells["starts on"] == "2022-02-21 (fact)"
    assert page.cells["capacity"] == "40 (invented)"
    assert "invented" in page.cells["staff, rooms, incidents"]


def test_one_participants_way_leads_from_the_seat_to_the_certificate(text: str) -> None:
    way = re.findall(r"<li><time>([^<]+)</time> ([^<]+)</li>", text)
    said = [what for _, what in way]
    assert said[0] == "participant enrolled"
    assert said[-2:] == ["programme completed", "credential issued"]
    assert sum(what.startswith("module completed") for what in said) == 18
    days = [datetime.strptime(day, "%d %b %Y").date() for day, _ in way]
    assert days == sorted(days)


def test_what_was_read_back_is_text_and_never_markup(tmp_path: Path) -> None:
    summary = recorded()
    summary.say("<b>line</b>", "<script>1</script> & more")
    report.write(SCENARIO, summary, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert page.cells["<b>line</b>"] == "<script>1</script> & more"
    assert page.found["script"] == page.found["b"] == 0


def test_the_same_summary_makes_the_same_page(text: str, tmp_path: Path) -> None:
    report.write(SCENARIO, recorded(), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text
