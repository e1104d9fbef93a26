"""The page in a real browser: no errors, tables sort and filter, figures and curves show, a phone can read it.

Needs Chromium (Debian: apt-get install chromium); skipped where there is none.
"""

import os
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def address(everything):
    return (everything / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    no_sandbox = ["--no-sandbox"] if os.getuid() == 0 else []  # root has none
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *no_sandbox], timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page as `open_page(width, height)`; at the end nothing may have gone wrong in it."""
    contexts, problems = [], []

    def opened(width=1280, height=900, color_scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, color_scheme=color_scheme))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def column(page, section, number):
    """Texts of a column's visible cells."""
    return page.evaluate(
        "([id, number]) => [...document.querySelectorAll(`#${id} tbody tr:not([hidden])`)]"
        ".map((row) => row.cells[number].textContent)",
        [section, number],
    )


def head(page, section, name):
    """Place and element of a column's head."""
    names = page.locator(f"#{section} thead th").all_inner_texts()
    place = next(i for i, text in enumerate(names) if text.strip() == name)
    return place, page.locator(f"#{section} thead th").nth(place)


def test_a_table_is_sorted_by_mouse_and_keyboard_as_numbers_and_as_text(open_page):
    page = open_page()
    place, value = head(page, "runs", "value")
    before = column(page, "runs", place)
    value.get_by_role("button").click()
    assert value.get_attribute("aria-sort") == "ascending"
    assert column(page, "runs", place) == sorted(before, key=float)
    value.get_by_role("button").press("Enter")
    assert value.get_attribute("aria-sort") == "descending"
    assert column(page, "runs", place) == sorted(before, key=float, reverse=True)
    place, task = head(page, "runs", "task")
    task.get_by_role("button").press("Space")
    assert column(page, "runs", place) == sorted(column(page, "runs", place))
    assert (task.get_attribute("aria-sort"), value.get_attribute("aria-sort")) == ("ascending", None)


def test_missing_numbers_stay_last_in_both_directions(open_page):
    page = open_page()
    place, difference = head(page, "numbers", "difference")
    for _ in range(2):
        difference.get_by_role("button").click()
        texts = column(page, "numbers", place)
        first_empty = texts.index("")
        assert first_empty > 0
        assert set(texts[first_empty:]) == {""}


def test_a_table_is_filtered_by_words_and_by_choice(open_page):
    page = open_page()
    runs = page.locator("#runs")
    total = len(column(page, "runs", 0))
    runs.get_by_label("Search").fill("A2MIM detection")
    assert column(page, "runs", 0) == ["demo-test_resnet-a2mim-detection-s0"]
    assert runs.locator("output").inner_text() == f"1 of {total} lines"
    runs.get_by_label("Search").fill("")
    runs.get_by_label("task").select_option("segmentation")
    place, _ = head(page, "runs", "task")
    assert set(column(page, "runs", place)) == {"segmentation"}
    runs.get_by_label("seed").select_option("1")
    assert len(column(page, "runs", 0)) == 3
    runs.get_by_label("Search").fill("nothing has this")
    assert column(page, "runs", 0) == []
    assert runs.locator("output").inner_text() == f"0 of {total} lines"


def test_figures_are_visible_with_their_text_and_in_the_colours_of_the_page(open_page):
    page = open_page(color_scheme="dark")
    figures = page.locator("#figures figure")
    assert figures.count() == 10
    for number in range(figures.count()):
        drawn = figures.nth(number).locator("svg").first
        drawn.scroll_into_view_if_needed()
        box = drawn.bounding_box()
        assert box["width"] > 300
        assert box["height"] > 150
    assert "difference in top-1 (best of last 10 epochs), points" in figures.first.locator("svg").first.text_content()
    styles = page.evaluate("[...document.querySelectorAll('#figures svg [style]')].map((n) => n.getAttribute('style'))")
    assert not [style for style in styles if "#000000" in style or "#ffffff" in style], "black on black"
    ink = page.evaluate("getComputedStyle(document.querySelector('#figures svg text')).fill")
    assert ink == "rgb(232, 232, 232)"


def test_curves_of_several_runs_lie_over_each_other_and_can_be_pointed_at(open_page):
    page = open_page()
    chart = page.locator("#overlay .u-over")
    chart.scroll_into_view_if_needed()
    page.get_by_label("runs of", exact=True).select_option("classification: test_resnet, demo")
    assert page.get_by_label("curve", exact=True).input_value() == "val top1"
    legend = page.locator("#overlay .u-series")
    assert legend.count() == 1 + 9, "three methods, three seeds"
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.66, box["y"] + box["height"] / 2)
    values = page.locator("#overlay .u-value").all_inner_texts()
    assert values[0] == "3"
    assert all(float(value) > 0 for value in values[1:])
    legend.nth(1).locator("th").click()
    assert "u-off" in legend.nth(1).get_attribute("class")
    page.get_by_label("curve", exact=True).select_option("train loss")
    assert page.locator("#overlay canvas").count() == 1


def test_a_wide_table_says_that_it_scrolls_and_its_first_column_stays(open_page):
    page = open_page(390, 844)
    table = page.locator("#runs [data-table]")
    sync_api.expect(table.locator(".hint")).to_be_visible()
    first = table.locator("tbody th").first
    before = first.bounding_box()["x"]
    table.locator(".scroll").evaluate("(box) => { box.scrollLeft = 300 }")
    assert first.bounding_box()["x"] == before
    sync_api.expect(open_page().locator("#left-out .hint")).to_be_hidden()


def test_print_keeps_a_figure_whole_with_its_heading(open_page):
    page = open_page()
    page.emulate_media(media="print")
    styles = page.evaluate(
        """() => ["#figures figure", "#figures h3", "tr"].map((name) => {
          const style = getComputedStyle(document.querySelector(name));
          return [style.breakInside, style.breakAfter];
        })"""
    )
    assert styles[0][0] == "avoid"
    assert styles[1][1] == "avoid"
    assert page.locator("#overlay").is_hidden()
    assert page.evaluate("getComputedStyle(document.querySelector('.table .scroll')).overflow") == "visible"


def test_no_table_is_wider_than_the_paper_it_is_printed_on(open_page):
    """A4 between its margins, upright and turned, in CSS pixels; everything opened."""
    page = open_page()
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    page.emulate_media(media="print")
    for width, turned in ((700, False), (1030, True)):
        page.set_viewport_size({"width": width, "height": 900})
        found = page.evaluate(
            """(turned) => [...document.querySelectorAll(".table")]
              .filter((box) => box.classList.contains("sideways") === turned)
              .map((box) => [box.querySelector("table"), box.querySelector("caption").textContent])
              .map(([table, name]) => [name, table.offsetWidth, parseFloat(getComputedStyle(table).fontSize)])""",
            turned,
        )
        assert len(found) > 3
        assert [entry for entry in found if entry[1] > width] == []
        assert min(size for _, _, size in found) > 6, "pixels, of which a point has 1.33"


def test_a_link_to_a_run_opens_it_with_curves_and_pictures(open_page):
    page = open_page()
    page.locator("#runs table").get_by_role("link", name="demo-test_resnet-a2mim-pretrain-s0", exact=True).click()
    run = page.locator("details.run[open]")
    sync_api.expect(run).to_have_count(1)  # waits: the browser tells the page of a new address in its own time
    run.locator(".curves svg path").nth(3).wait_for(state="attached")
    assert run.locator(".curves svg").first.get_attribute("aria-label").startswith("train loss: ")
    picture = run.locator("img").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function("(image) => image.complete && image.naturalWidth > 100", arg=picture.element_handle())
    assert "python -m pretrain" in run.locator("pre.command").inner_text()
    run.locator("summary").click()
    sync_api.expect(page.locator("details.run[open]")).to_have_count(0)


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_shows_the_page_in_its_width(open_page, color_scheme):
    page = open_page(390, 844, color_scheme)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    page.wait_for_function("document.querySelectorAll('.curves svg').length > 50")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = page.evaluate(
        "[...document.querySelectorAll('p, td, th, dd, summary, figcaption, label, pre')]"
        ".map((node) => parseFloat(getComputedStyle(node).fontSize))"
    )
    assert min(sizes) >= 12
    of_figures = page.evaluate(
        """() => [...document.querySelectorAll('#figures svg')].flatMap((svg) => {
          const scale = svg.getScreenCTM().a;
          return [...svg.querySelectorAll('text')].map((text) => parseFloat(getComputedStyle(text).fontSize) * scale);
        })"""
    )
    assert min(of_figures) > 7.5


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(open_page, color_scheme):
    """WCAG's contrast of 4.5 for every kind of text of the page."""
    page = open_page(color_scheme=color_scheme)
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (color_scheme == "dark")
    low = page.evaluate(
        """() => {
          const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
          const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
          const light = (rgb) => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
          const behind = (node) => {
            for (; node; node = node.parentElement) {
              const color = numbers(getComputedStyle(node).backgroundColor);
              if (color.length === 3 || color[3] > 0) return color;
            }
          };
          document.querySelectorAll("details").forEach((details) => { details.open = true });
          const found = [];
          const texts = "p, td, th, th button, dt, dd, a, summary, figcaption, pre, h2, label, caption, li";
          for (const node of document.querySelectorAll(texts)) {
            const [a, b] = [light(numbers(getComputedStyle(node).color)), light(behind(node))];
            const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (contrast < 4.5) found.push([node.tagName, node.className, contrast]);
          }
          return found;
        }"""
    )
    assert low == []
