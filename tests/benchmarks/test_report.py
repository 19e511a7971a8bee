"""The report: what it shows, and how it behaves in Chromium; screenshots stay in pytest's temporary folder."""

from __future__ import annotations

import base64
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

from condic.benchmarks.anchors import kodak_anchors
from condic.benchmarks.bd_rate import Curve
from condic.benchmarks.machine import Machine, _gpu
from condic.benchmarks.matrix import measure_matrix
from condic.benchmarks.pairs import Pairs, check_sides, make_pair
from condic.benchmarks.peers import open_peer
from condic.benchmarks.photographs import Resolution
from condic.benchmarks.rate_distortion import RateDistortion, compare, means, measure
from condic.benchmarks.report import KINDS, read_all, write_report
from condic.benchmarks.report.rates import Line, draw
from condic.benchmarks.results import Origin, Results, write_results
from condic.benchmarks.throughput import Measurement, Memory, Plan, Row, Throughput
from condic.benchmarks.timing import Direction, Spread
from condic.errors import InputError
from condic.runtime.codec import Codec

MACHINE = Machine("a processor", 2, 2**34, None, "Linux x86_64", "3.11", {"numpy": "2.0"})
SIZES = (Resolution("512x768", 512, 768), Resolution("1080p", 1920, 1080))
STAGES = {"analysis": 0.6, "context_0": 0.1, "context_1": 0.1, "entropy_step": 0.05, "coder": 0.05, "rest": 0.1}


def direction(seconds: float, coded: bool) -> Direction:
    stages = {name: share * seconds for name, share in STAGES.items()} if coded else {}
    return Direction(Spread(seconds, 0.9 * seconds, 1.2 * seconds, 10), 2 * seconds, stages)


def throughput() -> Throughput:
    rows = [
        Row(codec, backend, size, Measurement(
            "settings", 32, 5e4, 1.3, 0.5, direction(size.megapixels * pace, coded),
            direction(0.8 * size.megapixels * pace, coded), Memory(10**8, 2 * 10**8, 3 * 10**8, 4 * 10**8),
            ("analysis", "context_0", "context_1") if coded else (),
        ), None)
        for size in SIZES
        for codec, backend, pace, coded in (("dcic", "ort", 0.2, True), ("dcic", "openvino", 0.1, True),
                                            ("jpeg", None, 0.01, False))
    ]  # fmt: skip
    failed = Row("dcic", "broken", SIZES[0], None, "out of <luck>")
    plan = Plan(("photograph.png",), 1, 2, 32, 10, 60.0)
    return Throughput(plan, (*rows, failed), {"jxl": "pip install pillow-jxl-plugin"})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, codec: Codec, drawing: Callable[..., np.ndarray]) -> list[Path]:
    """A file of each kind of results; JPEG and WebP stand in for trained codecs."""
    folder = tmp_path_factory.mktemp("results")
    Image.fromarray(drawing(240, 320)).save(folder / "drawing.png")
    images = [folder / "drawing.png"]
    jpeg, webp = open_peer("jpeg"), open_peer("webp")
    measured = [row for peer in (jpeg, webp) for row in measure(peer, images, lambda _: None)]
    anchors = kodak_anchors()
    contents = {
        "throughput": throughput(),
        "rd": RateDistortion(
            {peer.name: peer.settings for peer in (jpeg, webp)}, tuple(measured), means(measured),
            tuple(compare("jpeg", means(measured), anchors)),
        ),
        "matrix": measure_matrix({"ort": codec, "other": codec}, images, 32, lambda _: None),
        "pairs": Pairs({"jpeg": jpeg.settings}, (make_pair(images[0], jpeg, 20, [webp], lambda _: None),)),
    }  # fmt: skip
    assert contents.keys() == KINDS.keys()
    paths = []
    for kind, content in contents.items():
        origin = Origin(kind, f"condic-bench {kind}", "0.1.0", "2026-01-01 00:00", MACHINE)
        write_results(folder / f"{kind}.json", Results(origin, content))
        paths.append(folder / f"{kind}.json")
    return paths


@pytest.fixture(scope="module")
def page(results: list[Path]) -> Path:
    path = results[0].parent / "report.html"
    write_report(read_all(results), path)
    return path


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Any]:
    """Chromium with the report open."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium is not installed: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        opened.get(page.as_uri())
        yield opened
    finally:
        opened.quit()


def _share(browser: Any) -> float:
    """Where the divider stands: percent from the left of the picture."""
    return float(browser.execute_script(
        "const line = document.querySelector('.pair .line').getBoundingClientRect();"
        "const stage = document.querySelector('.pair .stage').getBoundingClientRect();"
        "return 100 * (line.left + line.width / 2 - stage.left) / stage.width;"
    ))  # fmt: skip


def test_the_page_has_everything_and_needs_nothing(page: Path):
    text = page.read_text()
    assert text.count("<svg") == 5
    for words in ("dcic openvino", "out of &lt;luck&gt;", "pip install pillow-jxl-plugin", "vtm", "outside graphs",
                  "Any backend decodes", "Pictures in as many bytes", "16 GiB"):  # fmt: skip
        assert words in text, words
    for address in ('src="http', "url(http", "@import", "<link"):
        assert address not in text


def test_plots_take_their_colours_from_the_page(page: Path):
    svg = page.read_text().partition("<svg")[2].partition("</svg>")[0]
    assert "var(--series-0)" in svg
    assert "var(--ink)" in svg
    assert "#0" not in svg.replace("#0b62a4", ""), "a stand-in for a colour is left"


@pytest.mark.slow
def test_chromium_shows_it_without_an_error_or_a_request(browser: Any, page: Path):
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith("data:") for name in fetched)
    widths = browser.execute_script("return [...document.querySelectorAll('img')].map(image => image.naturalWidth)")
    assert set(widths) == {320}
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    height = browser.execute_script("return document.documentElement.scrollHeight")
    browser.set_window_size(1200, height + 200)
    assert browser.save_screenshot(str(page.with_name("light.png")))
    with Image.open(page.with_name("light.png")) as shot:
        assert np.asarray(shot.convert("L")).std() > 10


@pytest.mark.slow
def test_the_divider_follows_mouse_and_keys(browser: Any):
    from selenium.webdriver import ActionChains, Keys

    slider = browser.find_element("css selector", ".pair input")
    assert _share(browser) == pytest.approx(50, abs=1)
    ActionChains(browser).click_and_hold(slider).move_by_offset(-slider.size["width"] // 4, 0).release().perform()
    assert _share(browser) == pytest.approx(25, abs=5)
    before = _share(browser)
    slider.send_keys(Keys.END)
    assert _share(browser) > 98
    slider.send_keys(Keys.HOME)
    assert _share(browser) < 2 < before


@pytest.mark.slow
def test_the_lists_choose_the_pictures(browser: Any):
    shown = "return document.querySelector('.pair img.under').src"
    before = browser.execute_script(shown)
    browser.find_element("css selector", ".pair select[data-side=right] option[value='0']").click()
    assert browser.execute_script(shown) != before
    first = "return document.querySelector('.pair .all img').src"
    assert browser.execute_script(shown) == browser.execute_script(first)


@pytest.mark.slow
def test_it_is_dark_where_the_reader_wants_that_and_white_on_paper(browser: Any, page: Path):
    background = "return getComputedStyle(document.body).backgroundColor"
    wanted = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
    red, green, blue = (int(part) for part in browser.execute_script(background)[4:-1].split(","))
    assert red + green + blue < 150
    assert browser.save_screenshot(str(page.with_name("dark.png")))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", **wanted})
    assert browser.execute_script(background) == "rgb(255, 255, 255)"
    pictures = "return [...document.querySelectorAll('.pair .all')].map(all => all.offsetHeight > 0)"
    assert browser.execute_script(pictures) == [True]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    pdf = base64.b64decode(browser.print_page())
    page.with_name("print.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF")


def test_a_curve_is_drawn_where_it_is_finite_and_names_hold_any_character():
    curve = Curve((0.1, 0.2, 0.3), (30.0, 32.0, math.inf))
    assert "a$_$b" in draw([Line("a$_$b", curve, True), Line("c", curve, False)], "PSNR, dB")
    draw([Line("all equal", Curve((0.1, 0.2), (math.inf, math.inf)), True)], "PSNR, dB")


def test_a_photograph_too_large_for_the_page_is_told_before_any_is_coded(tmp_path: Path):
    Image.new("RGB", (16384, 1)).save(tmp_path / "wide.png")
    with pytest.raises(InputError, match=r"wide\.png: more than 16383 pixels a side"):
        check_sides([tmp_path / "wide.png"])


def test_a_driver_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch):
    def hang(*arguments: Any, timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", timeout)

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", hang)
    assert _gpu() is None
