"""The report in a browser: it draws, sorts, searches and changes, and asks nothing of anyone."""

import csv
import io
import re

import pytest
from browser import chromium, opened
from dumps import arrays, whole
from test_report import HOSTILE, data_of, parting, parts_of

import fastdiv

pytest.importorskip("plotly")
pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def run():
    return fastdiv.analyze(arrays(parting()))


@pytest.fixture(scope="module")
def path(run, tmp_path_factory):
    made = tmp_path_factory.mktemp("report") / "report.html"
    run.report(made)
    return made


@pytest.fixture(scope="module")
def split(path):
    return data_of(path.read_text("utf-8"))["splits"][0]


@pytest.fixture(scope="module")
def page_of_all(browser, path):
    """Return the page that most tests share: opening one takes the longest."""
    with opened(browser, path, permissions=["clipboard-read", "clipboard-write"]) as made:
        yield made


@pytest.fixture
def seen(page_of_all, split):
    """Return the page as it is when it has just been opened."""
    at_first = f"#pair={split['pair'].replace('→', ',')}&epoch={split['epoch']}"
    page_of_all.page.evaluate(f"location.hash = '#why'; location.hash = '{at_first}'")
    page_of_all.page.wait_for_function(
        f"document.querySelector('output').textContent === '{split['epoch']}'"
    )
    page_of_all.page.evaluate("scrollTo(0, 0)")
    return page_of_all


def through(seen):
    """Scroll through the page, so that everything is drawn."""
    page = seen.page
    for i in range(page.locator(".plot:visible").count()):
        plot = page.locator(".plot:visible").nth(i)
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for(state="attached", timeout=30_000)


def test_everything_is_drawn_and_nothing_is_asked_of_anyone(seen, split):
    through(seen)
    assert seen.quiet(), (seen.errors, seen.requests)
    pictures = [p for s in split["sections"] for p in s["parts"] if p["is"] == "picture"]
    assert seen.page.locator("figure .main-svg").count() >= len(pictures) + 2
    assert seen.page.locator(".table-block table").count() == sum(
        p["is"] == "table" for s in split["sections"] for p in s["parts"]
    )
    assert seen.page.locator("h1").count() == 1


def test_the_first_screen_says_why(seen, run, split):
    made = run.explain()
    said = split["verdicts"][split["pair"]]
    assert seen.texts("#why h2")[0].lower() == said["headline"].lower()
    assert f"{abs(made.delta_loss):.4f}" in seen.texts(".tiles dd")[0]
    assert len(seen.texts(".causes > li")) == len(made.causes) > 0
    for text, cause in zip(seen.texts(".causes > li"), made.causes, strict=True):
        assert cause.advice in text
        assert all(str(i) in text for i in cause.sample_ids)
    seen.drawn("figure[id^=causes]")
    numbers = seen.page.locator("figure[id^=causes] text").all_text_contents()
    assert f"{made.causes[0].nats:+.4f}".replace("-", "−") in numbers
    seen.page.wait_for_timeout(100)
    box = seen.page.locator("figure[id^=causes]").bounding_box()
    assert box["y"] + box["height"] < 1000, "the causes are on the first screen"
    chart = seen.page.locator("figure[id^=loss_accuracy]").bounding_box()
    assert chart["y"] < 300
    assert chart["x"] + chart["width"] < box["x"]


def test_the_slider_moves_all_pictures_of_an_epoch(seen, run):
    for epoch in (0, 3):
        slider = seen.page.locator("#epoch")
        slider.focus()
        seen.page.keyboard.press("Home")
        for _ in range(epoch):
            seen.page.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") == f"epoch {epoch}"
        seen.page.wait_for_url(re.compile(rf"epoch={epoch}$"))
        assert seen.texts("figure[id^=reliability] .which") == [f"Epoch {epoch}"]
        worst = run.split().concentration(epoch, most=1).worst
        (row,) = worst.to_pylist()
        cells = seen.texts("#concentration tbody tr:first-child td")
        assert cells[0] == str(row["sample_id"])
        assert f"{row['loss']:.4g}"[:4] in "".join(cells)
        seen.drawn("figure[id^=confidence]")
        counted = sum(
            sum(v for v in trace["y"] if v is not None)
            for trace in seen.traces("figure[id^=confidence]")
        )
        assert counted == len(run.split().side(epoch))
    assert seen.quiet(), seen.errors


def test_the_pair_moves_verdict_pictures_and_tables(seen, run):
    seen.page.select_option("#pair", "1→2")
    made = run.explain(1, 2)
    assert f"{abs(made.delta_loss):.4f} nats" in seen.texts("#why h2")[0]
    seen.page.wait_for_url(re.compile("pair=1%2C2&epoch=2$"))
    assert seen.texts("figure[id^=reliability] .which") == ["Epoch 2"]
    assert seen.texts(".kicker") == ["Epochs 1 → 2"]
    assert seen.texts("#said") == seen.texts("#why h2")
    assert seen.texts("figure[id^=flow] .which") == ["Epochs 1 → 2"]
    seen.drawn("#flow figure")
    (sankey,) = seen.traces("#flow figure")
    assert sum(sankey["link"]["value"]) == pytest.approx(1500, abs=2)
    column = next(
        i
        for i, title in enumerate(seen.texts("#classes th"))
        if title.startswith("Adds to the loss")
    )
    shown = seen.page.locator(f"#classes td:nth-child({column + 1})").all_inner_texts()
    assert sum(float(x.replace("−", "-")) for x in shown) == pytest.approx(
        run.transition(None, 1, 2)["delta_loss"], abs=1e-3
    )
    seen.page.get_by_role("button", name="Next pair").click()
    assert seen.page.locator("#pair").input_value() == "2→3"
    assert seen.texts("figure[id^=flow] .which") == ["Epochs 2 → 3"]
    assert seen.quiet(), seen.errors


def test_a_choice_can_be_linked(browser, path):
    with opened(browser, path, hash="#pair=2,3&epoch=1") as fresh:
        assert fresh.page.locator("#pair").input_value() == "2→3"
        assert fresh.page.locator("output").inner_text() == "1"
    with opened(browser, path, hash="#epochs") as fresh:
        fresh.page.wait_for_function("scrollY > 1000")
        assert 0 <= fresh.page.locator("#epochs").bounding_box()["y"] < 200


def test_the_address_can_be_changed_and_what_is_not_there_is_passed_over(seen, split):
    seen.page.evaluate("location.hash = '#pair=7,9&epoch=&split=<img>'")
    seen.page.wait_for_timeout(100)
    assert seen.page.locator("#pair").input_value() == split["pair"]
    assert seen.page.locator("output").inner_text() == str(split["epoch"]) != "0"
    for pair, epoch in (("2,3", "1"), ("0,1", "4")):
        seen.page.evaluate(f"location.hash = '#pair={pair}&epoch={epoch}'")
        seen.page.wait_for_function(
            f"document.querySelector('#pair').value === '{pair.replace(',', '→')}'"
        )
        assert seen.page.locator("output").inner_text() == epoch
    seen.page.go_back()
    seen.page.wait_for_function("document.querySelector('#pair').value === '2→3'")
    assert seen.page.locator("output").inner_text() == "1"
    assert seen.quiet(), seen.errors


def test_quick_changes_do_not_flood_the_address(seen):
    seen.page.evaluate("""() => {
        window.written = 0;
        const write = history.replaceState.bind(history);
        history.replaceState = (...all) => { window.written += 1; write(...all); };
        const slider = document.getElementById("epoch");
        for (let i = 0; i < 400; i++) {
            slider.value = i % 4;
            slider.dispatchEvent(new Event("input"));
        }
    }""")
    seen.page.wait_for_url(re.compile("epoch=3$"))
    assert seen.page.evaluate("window.written") == 2
    assert seen.page.locator("output").inner_text() == "3"
    assert seen.quiet(), seen.errors


def test_a_click_on_an_epoch_chooses_it(seen):
    plot = seen.drawn("figure[id^=loss_accuracy]")
    area = plot.locator(".nsewdrag").first.bounding_box()
    seen.page.mouse.move(area["x"] + 2, area["y"] + 40)
    seen.page.mouse.move(area["x"] + 4, area["y"] + 42, steps=4)
    seen.page.wait_for_timeout(300)
    seen.page.mouse.down()
    seen.page.mouse.up()
    seen.page.wait_for_timeout(500)
    assert seen.page.locator("output").inner_text() == "0"


def test_tables_are_sorted_searched_copied_and_saved(seen, split):
    values = parts_of(split)["worst"]["frames"][str(split["epoch"])]["values"]
    block = seen.page.locator("#concentration .table-block")
    button = block.locator("th button", has_text="Confidence")
    button.click()
    head = block.locator("th", has_text="Confidence")
    assert head.get_attribute("aria-sort") == "descending"
    place = block.locator("th").all_inner_texts().index(head.inner_text())
    shown = block.locator(f"td:nth-child({place + 1})").all_inner_texts()
    wanted = sorted(values["confidence"], reverse=True)
    assert [float(x.split()[0]) for x in shown] == pytest.approx(
        [100 * x for x in wanted[: len(shown)]], abs=0.006
    )
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert len(shown) == 100
    block.get_by_role("button", name="Show all").click()
    assert block.locator("tbody tr").count() == len(values["id"]) > 100

    place = (
        block.locator("th")
        .all_inner_texts()
        .index(block.locator("th", has_text="Loss").first.inner_text())
    )
    losses = block.locator(f"td:nth-child({place + 1})").all_inner_texts()
    assert max(map(float, losses)) == pytest.approx(max(values["loss"]))
    assert max(values["loss"]) > 10
    assert max(len(loss.replace(".", "").lstrip("0")) for loss in losses) == 5, "no more is known"

    needle = str(values["id"][3])
    block.get_by_role("searchbox").fill(needle)
    found = block.locator("tbody tr").all_inner_texts()
    assert found
    assert all(needle in row for row in found)
    assert block.locator(".count").inner_text().startswith(f"{len(found)} of ")
    block.get_by_role("button", name="Copy").click()
    copied = seen.page.evaluate("navigator.clipboard.readText()").splitlines()
    assert len(copied) == 1 + len(found)
    names = copied[0].split("\t")
    assert names[0] == "id"
    assert len(set(names)) == len(names)
    with seen.page.expect_download() as saved:
        block.get_by_role("button", name="Save as CSV").click()
    text = saved.value.path().read_text("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == 1 + len(found)
    assert seen.quiet(), seen.errors


def test_headings_are_explained_where_they_are_pointed_at_and_focused(seen):
    button = seen.page.locator("#epochs th button", has_text="ECE").first
    button.focus()
    assert "calibration error" in seen.page.locator("#hint").inner_text()
    seen.page.keyboard.press("Escape")
    assert not seen.page.locator("#hint").is_visible()
    button.hover()
    assert seen.page.locator("#hint").is_visible()


def test_people_with_other_eyes_can_read_it(browser, tmp_path):
    path = tmp_path / "report.html"
    fastdiv.analyze(arrays(parting(n=80))).report(path)  # tables of many rows take axe long
    with opened(browser, path, color_scheme="light", bypass_csp=True) as seen:
        through(seen)
        assert seen.violations() == []
        seen.page.emulate_media(color_scheme="dark")
        assert seen.violations(["color-contrast"]) == []


def test_pictures_take_the_colours_of_the_page(seen):
    seen.drawn("figure[id^=loss_accuracy]")
    inks = set()
    for scheme in ("dark", "light"):
        seen.page.emulate_media(color_scheme=scheme)
        colour = seen.page.locator("figure[id^=loss_accuracy] .xtick text").first.evaluate(
            "node => getComputedStyle(node).fill"
        )
        assert colour == seen.page.evaluate("getComputedStyle(document.body).color")
        inks.add(colour)
    assert len(inks) == 2


def test_narrow_screens_say_why_first_and_do_not_scroll_sideways(browser, path):
    with opened(browser, path, size=(390, 844)) as seen:
        for width in (390, 768):
            seen.page.set_viewport_size({"width": width, "height": 844})
            seen.page.evaluate("scrollTo(0, 0)")
            bar = seen.page.locator("figure[id^=causes]").bounding_box()
            assert bar["y"] + bar["height"] < 844
            through(seen)
            inner = seen.page.evaluate("document.documentElement.clientWidth")
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= inner == width


def test_on_paper_everything_is_drawn_and_nothing_can_be_pressed(browser, path):
    with opened(browser, path, color_scheme="dark") as seen:
        seen.drawn("figure[id^=loss_accuracy]")
        seen.page.emulate_media(media="print")
        seen.page.wait_for_timeout(1000)
        plots = seen.page.locator(".plot:visible")
        for i in range(plots.count()):
            assert plots.nth(i).locator(".main-svg").count(), i
            assert plots.nth(i).locator(".main-svg").first.bounding_box()["width"] <= 700
        assert not seen.page.locator(".controls").is_visible()
        paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
        assert seen.page.locator("#concentration tbody tr:visible").count() == 30
        seen.page.pdf()
        assert seen.quiet(), seen.errors


def test_without_scripts_the_explanation_is_text(browser, run, path):
    with opened(browser, path, java_script_enabled=False) as seen:
        texts = seen.page.locator("noscript pre, pre").all_text_contents()
        assert any(str(run.explain()) in text for text in texts)


def hostile_run():
    dump = parting(n=160, c=8, epochs=(0, 1, 2))
    ids = [f"{HOSTILE[i % 8]}-{i}" for i in range(160)]
    return fastdiv.analyze(whole(dump, sample_id=ids), class_names=HOSTILE)


def test_hostile_names_are_text_and_nothing_else(browser, tmp_path, path):
    made = tmp_path / "report.html"
    hostile_run().report(made)
    with opened(browser, made, permissions=["clipboard-read", "clipboard-write"]) as seen:
        through(seen)
        assert seen.quiet(), (seen.errors, seen.requests, seen.dialogs)
        for tag in ("img", "iframe", "object", "b", "#report script"):
            assert seen.page.locator(f"{tag}:not(.plot *)").count() == 0, tag
        assert seen.page.locator(".plot svg a").count() == 0
        text = seen.page.locator("#concentration").inner_text()
        assert "<script>alert(1)</script>-" in text
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1400
        block = seen.page.locator("#concentration .table-block")
        block.get_by_role("searchbox").fill("=cmd")
        block.get_by_role("button", name="Copy").click()
        copied = seen.page.evaluate("navigator.clipboard.readText()").splitlines()[1:]
        cells = [cell for line in copied for cell in line.split("\t")]
        assert all(cell.count('"') % 2 == 0 for cell in cells), "no quote opens a cell for good"
        assert sum(cell.startswith("'=cmd|calc") for cell in cells) >= len(copied) > 0
        assert not any(cell.startswith("=") for cell in cells)
        with seen.page.expect_download() as saved:
            block.get_by_role("button", name="Save as CSV").click()
        rows = list(csv.reader(io.StringIO(saved.value.path().read_text("utf-8-sig"), newline="")))
        cells = [cell for row in rows for cell in row]
        assert not any(re.match(r"[=+@]|-\D", cell) for cell in cells)


def test_addresses_become_links_only_if_they_are_harmless(browser, tmp_path, run):
    made = tmp_path / "report.html"
    run.report(made)
    first, second, third, fourth, fifth, *_ = parts_of(
        data_of(made.read_text("utf-8"))["splits"][0]
    )["worst"]["frames"]["0"]["values"]["id"]
    addresses = {
        str(first): "javascript:alert(1)",
        str(second): "https://example.org/a.png",
        str(third): "images/a b.png",
        str(fourth): "//evil.example/x",
        str(fifth): " data:text/html,<script>alert(1)</script>",
    }
    from fastdiv.render.report import contents

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "links", lambda *_: addresses)
        run.report(made)
    with opened(browser, made, hash="#epoch=0") as seen:
        found = seen.page.locator("#concentration td.id a")
        links = {
            a.inner_text(): (a.get_attribute("href"), a.get_attribute("rel")) for a in found.all()
        }
        assert links == {
            str(second): ("https://example.org/a.png", "noopener noreferrer"),
            str(third): ("images/a b.png", "noopener noreferrer"),
        }


def test_one_epoch_and_two_splits_and_a_script_beside(browser, tmp_path):
    made = tmp_path / "report.html"
    fastdiv.analyze(arrays(parting(epochs=(7,)))).report(made, plotly="directory")
    with opened(browser, made) as seen:
        through(seen)
        assert seen.texts("#why h2") == ["Epoch 7 alone"]
        assert not seen.page.locator("#pair").is_visible()
        assert seen.quiet(), (seen.errors, seen.requests)
    run = fastdiv.analyze({
        name: whole(parting(n=300, seed=seed, epochs=range(3 + seed)))
        for seed, name in enumerate(("dev", "val"))
    })  # fmt: skip
    run.report(made)
    with opened(browser, made) as seen:
        assert seen.page.locator("#split option").all_inner_texts() == ["dev", "val"]
        assert seen.page.locator("#split").input_value() == "1"
        seen.page.select_option("#split", "0")
        assert "dev: from epoch" in seen.texts("#why h2")[0]
        assert "split=dev" in seen.page.url
        assert seen.page.locator("#epoch").get_attribute("max") == "2"
        through(seen)
        assert seen.quiet(), (seen.errors, seen.requests)


def test_a_thousand_classes_can_be_used(browser, tmp_path):
    made = tmp_path / "report.html"
    fastdiv.analyze(arrays(parting(n=3000, c=1000, epochs=(0, 1, 2)))).report(made)
    with opened(browser, made) as seen:
        block = seen.page.locator("#classes .table-block")
        assert block.locator("tbody tr").count() == 100
        block.get_by_role("searchbox").fill("777")
        assert 0 < block.locator("tbody tr").count() < 20
        through(seen)
        assert seen.quiet(), seen.errors
