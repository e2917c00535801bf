"""The interactive page in a real browser: it loads, it is chosen from, and a link shows the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from results_factory import make_result
from test_head_report import head_result, latency

from shrinkbench_bert import Result, ResultStore
from shrinkbench_bert.report.page import write_page
from shrinkbench_bert.timings import save_latency

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed (Debian's package chromium)", allow_module_level=True)

PATIENCE = 120_000
"""Milliseconds: machines may be busy."""
expect = playwright.expect
expect.set_options(timeout=PATIENCE)
Open = Callable[..., Any]
LINE = "document.getElementById('curves-plot').data.find((line) => line.name === '{}')"
AFTER = {"LayerMagWeight": 0.75, "LayerGradCAM": 0.85, "LayerRandom": 0.55}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Open]:
    """Open a page; whatever it logs, throws or asks the network for fails the test."""
    faults: list[str] = []
    contexts = []

    def opened(path: Path, fragment: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.extend([request.url] * request.url.startswith("http")))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.goto(f"{path.as_uri()}{fragment}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def written(folder: Path, *results: Result) -> Path:
    store = ResultStore(folder / "hand")
    for result in results:
        store.save(result)
    store.folder.mkdir(exist_ok=True)
    write_page(store.folder, folder / "plots", folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, three strategies, two amounts, two seeds."""
    results = []
    for name, accuracy in AFTER.items():
        for keep, seed in ((0.5, 0), (0.5, 1), (0.1, 0), (0.1, 1)):
            after = {"accuracy": accuracy}
            results.append(make_result("sst2", name, keep=keep, seed=seed, after_retraining=after))
            results.append(make_result("stsb", name, keep=keep, seed=seed))
    return written(tmp_path_factory.mktemp("grid"), *results)


def rows(page: Any) -> list[list[str]]:
    return [row.locator("td").all_inner_texts() for row in page.locator("#cells-table tbody tr").all()]


class TestCurves:
    def test_they_show_the_means(self, show: Open, grid: Path) -> None:
        page = show(grid)
        line = page.evaluate(LINE.format("LayerGradCAM"))
        assert (line["x"], line["y"]) == ([50, 10], [85, 85])
        assert page.locator("#curves-plot .scatterlayer .trace").count() == 3
        assert page.locator(".legend span").all_inner_texts() == [
            "dense, unpruned 90.0",
            "majority class 51.0",
        ]
        page.locator("#curves-plot .trace").nth(0).locator(".point").nth(0).hover(force=True)
        words = " ".join(page.locator("#curves-plot .hoverlayer").all_text_contents())
        for part in (
            "LayerMagWeight",
            "50 %",
            "mean 75.0 ± 0.0 (sd)",
            "95 % interval",
            "n = 2 seeds, 400 examples",
        ):
            assert part in words
        assert "sst2/LayerMagWeight/keep-0.5_seed{0,1}.json" in words

    def test_task_metric_stage_and_axis_can_be_chosen(self, show: Open, grid: Path) -> None:
        page = show(grid)
        for name, value in {"task": "stsb", "metric": "pearson", "stage": "before_retraining"}.items():
            page.select_option(f"select[name={name}]", value)
        page.select_option("select[name=x]", "prunable_compression")
        line = page.evaluate(LINE.format("LayerMagWeight"))
        assert (line["x"], line["y"]) == ([2, 10], [0.1, 0.1])

    def test_the_legend_hides_a_strategy_and_shows_it_again(self, show: Open, grid: Path) -> None:
        page = show(grid)
        button = page.get_by_role("button", name="LayerRandom")
        for pressed in ("false", "true"):
            button.click()
            expect(button).to_have_attribute("aria-pressed", pressed)
            expect(page.locator("#curves-plot .trace")).to_have_count(2 if pressed == "false" else 3)
            assert ("off=LayerRandom" in page.url) == (pressed == "false")

    def test_the_legend_works_by_keyboard(self, show: Open, grid: Path) -> None:
        page = show(grid)
        page.get_by_role("button", name="LayerGradCAM").focus()
        for visible in (False, True):
            page.keyboard.press("Space")
            assert page.evaluate(LINE.format("LayerGradCAM"))["visible"] is visible
        assert page.evaluate("document.activeElement.dataset.strategy") == "LayerGradCAM"

    def test_its_numbers_can_be_read_as_a_table(self, show: Open, grid: Path) -> None:
        page = show(grid, "#off=LayerMagWeight,LayerRandom")
        page.get_by_text("The numbers of this figure").click()
        table = page.locator("#numbers tbody tr")
        assert table.count() == 4  # dense, baseline and two points
        assert table.nth(2).inner_text().split("\t")[:5] == ["LayerGradCAM", "50 %", "50 %", "85.0", "0.0"]


class TestCells:
    def test_sorting(self, show: Open, grid: Path) -> None:
        page = show(grid)
        head = page.get_by_role("columnheader", name="after retraining")
        for direction, first in (("ascending", "LayerRandom"), ("descending", "LayerGradCAM")):
            head.click()
            expect(head).to_have_attribute("aria-sort", direction)
            expect(page.locator("#cells-table tbody td").first).to_have_text(first)
        assert "sort=after+retraining.desc" in page.url
        page.get_by_role("button", name="seed: Activate to sort").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("columnheader", name="seed")).to_have_attribute("aria-sort", "ascending")
        assert [row[2] for row in rows(page)] == ["0"] * 6 + ["1"] * 6

    def test_filtering(self, show: Open, grid: Path) -> None:
        page = show(grid)
        assert len(rows(page)) == 12
        page.get_by_label("filter").fill("keep-0.1 Cam")
        expect(page.locator("#cells-table tbody tr")).to_have_count(2)
        assert [row[:3] for row in rows(page)] == [["LayerGradCAM", "keep-0.1", seed] for seed in "01"]
        page.wait_for_function("location.hash.includes('find=keep-0.1+Cam')")


class TestLink:
    def test_it_shows_the_same_to_someone_else(self, show: Open, grid: Path) -> None:
        page = show(grid)
        page.select_option("select[name=task]", "stsb")
        page.select_option("select[name=metric]", "spearman")
        page.select_option("select[name=x]", "compression")
        page.get_by_role("button", name="LayerRandom").click()
        page.get_by_label("filter").fill("CAM")
        page.get_by_role("columnheader", name="seed").click()
        page.wait_for_function("/find=CAM.*sort=seed.asc/.test(location.hash)")
        other = show(grid, f"#{page.url.partition('#')[2]}")
        assert other.locator("select[name=metric]").input_value() == "spearman"
        assert other.locator("select[name=x]").input_value() == "compression"
        assert other.get_by_role("button", name="LayerRandom").get_attribute("aria-pressed") == "false"
        expect(other.get_by_role("columnheader", name="seed")).to_have_attribute("aria-sort", "ascending")
        assert rows(other) == rows(page)
        assert len(rows(other)) == 4

    @pytest.mark.parametrize(
        "fragment", ["#task=none&x=&sort=nothing.up&off=,,", "#%3Cscript%3E", "#setting=7"]
    )
    def test_one_that_asks_for_what_is_not_there_shows_the_usual(
        self, show: Open, grid: Path, fragment: str
    ) -> None:
        page = show(grid, fragment)
        assert page.locator("select[name=task]").input_value() == "sst2"
        assert page.locator("#curves-plot .trace").count() == 3


class TestResults:
    def test_one_cell(self, show: Open, tmp_path: Path) -> None:
        page = show(written(tmp_path, make_result("stsb", after_retraining={"pearson": None})))
        assert len(rows(page)) == 1
        assert page.locator("#masks-none").inner_text() == "No masks of two strategies are known."
        page.select_option("select[name=metric]", "pearson")
        assert rows(page)[0][8] == "undefined"
        assert page.locator("#claims tbody tr").count() >= 15
        assert page.locator("#checklist tbody tr").count() == 12

    def test_none(self, show: Open, tmp_path: Path) -> None:
        assert "No results in this folder yet" in show(written(tmp_path)).locator("header").inner_text()

    def test_hostile_text_is_text(self, show: Open, tmp_path: Path) -> None:
        attack = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
        result = make_result(model=attack, source=attack, grid=attack)
        provenance = result.provenance.model_copy(
            update={"processor": attack, "device": "</td>" + attack, "versions": {attack: attack}}
        )
        fingerprints = result.fingerprints.model_copy(update={"data": attack, "model": attack})
        hostile = result.model_copy(update={"provenance": provenance, "fingerprints": fingerprints})
        page = show(written(tmp_path / "<img src=x onerror=alert(3)>", hostile, make_result(seed=1)))
        for place in ("#words", "#provenance", ".warning"):
            assert "<script>alert(1)</script>" in page.locator(place).first.inner_text()
        page.select_option("select[name=setting]", index=1)
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 8  # the data and the seven of the page

    def test_settings_that_do_not_mix(self, show: Open, tmp_path: Path) -> None:
        results = [make_result(seed=seed, protocol=name) for seed, name in enumerate(("sound", "paper"))]
        page = show(written(tmp_path, *results))
        assert "protocol (sound / paper)" in page.get_by_role("alert").inner_text()
        assert page.evaluate(LINE.format("LayerMagWeight"))["hovertext"][0].count("seed0.json") == 1
        page.select_option("select[name=setting]", index=1)
        assert page.evaluate(LINE.format("LayerMagWeight"))["hovertext"][0].count("seed1.json") == 1
        assert "protocol paper" in page.locator("#words").inner_text()
        assert page.locator("#provenance [data-setting]:visible").count() == 1

    def test_heads(self, show: Open, tmp_path: Path) -> None:
        save_latency(ResultStore(tmp_path / "hand"), latency(0.25))
        results = [head_result(name, f, 0) for name in ("HeadEntropy", "HeadRandom") for f in (0.25, 0.5)]
        page = show(written(tmp_path, *results), "#scored=HeadRandom&fraction=0.25&x=latency_1_32")
        plots = {
            name: f"document.getElementById('{name}-plot').data" for name in ("scores", "removed", "cost")
        }
        assert page.evaluate(plots["scores"])[0]["z"] == [[2, 1], [4, 3]]
        assert page.evaluate(plots["removed"])[0]["z"] == [[1, 0], [0, 0]]
        cost = [(line["marker"]["symbol"], line["line"]) for line in page.evaluate(plots["cost"])]
        assert len(cost) == 2 + 8
        assert all(one not in cost[:i] for i, one in enumerate(cost))
        assert page.evaluate(LINE.format("HeadRandom"))["x"] == [7.5]
        assert not page.locator("#masks").is_visible()


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 26)")])
def test_a_phone_in_either_colour_scheme(show: Open, grid: Path, scheme: str, paper: str) -> None:
    page = show(grid, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    color = page.evaluate(LINE.format("LayerMagWeight"))["line"]["color"]
    assert (color == "#0072B2") == (scheme == "light")
