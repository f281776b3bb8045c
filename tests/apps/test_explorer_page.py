"""The explorer's page in Chromium, where it and Playwright are installed."""

import base64
import shutil

import pytest
from helpers.explorer_server import serving
from helpers.tiny_towers import ARCH, photo_file, tiny_tower

from pe_dense.apps.explorer import Explorer
from pe_dense.apps.explorer.app import MAX_RUNS

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DROP = """([content, name]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type: "image/png" }));
    return data;
}"""


@pytest.fixture
def max_runs():
    return MAX_RUNS


@pytest.fixture
def page(max_runs, monkeypatch):
    if BROWSER is None:
        pytest.skip("no Chromium")
    monkeypatch.setattr("pe_dense.apps.explorer.app.MAX_RUNS", max_runs)
    towers = dict(first=tiny_tower(), second=tiny_tower(arch=dict(ARCH, layers=2)))
    with serving(Explorer(towers, max_size=128)) as server, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.asked, page.faults = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda fault: page.faults.append(fault))
        page.home = f"http://127.0.0.1:{server.address[1]}/"
        page.goto(page.home)
        yield page
        browser.close()


def drop(page, number, content, name):
    data = page.evaluate_handle(DROP, [base64.b64encode(content).decode(), name])
    page.dispatch_event(f"#drop-{number}", "drop", dict(dataTransfer=data))


def wait_for(page, what, count):
    page.locator(f".tower .frame[data-path*='{what}'] img").nth(count - 1).wait_for(timeout=60_000)


def test_exploring(page):
    drop(page, 0, photo_file(), "first image.png")
    wait_for(page, "colors", 2)  # one image, two backbones
    drop(page, 1, photo_file(seed=1), "b.png")
    wait_for(page, "colors", 4)
    page.click("#drop-0 img", position=dict(x=60, y=60))
    wait_for(page, "similarity", 4)
    assert page.inner_text("#tower-0 figure:nth-child(4) figcaption").startswith("Cosine")
    similarity = page.get_attribute("#tower-0 figure:nth-child(4) .frame", "data-path")
    before = page.locator("#drop-0 .point").bounding_box()
    page.focus("#drop-0 .fit")
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function("before => !document.querySelector(`.frame[data-path='${before}']`)", arg=similarity)
    assert page.locator("#drop-0 .point").bounding_box()["x"] > before["x"] + 10

    page.fill("#tower-0 .layer input", "0")
    wait_for(page, "layer=0", 4)
    assert page.inner_text("#tower-0 output") == "0 of 2"
    with page.expect_download() as download:
        page.locator("#tower-0 figcaption a").first.click()
    assert download.value.suggested_filename == "first_image_first_layer0_pca.png"

    drop(page, 1, b"text", "text.png")
    page.wait_for_selector("#error:not([hidden])")
    assert "not a readable image" in page.inner_text("#error")
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(33 << 20)], "large.png"));
            document.getElementById("drop-1").dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
        }"""
    )
    page.wait_for_function("document.getElementById('error').textContent == 'large.png is 33 MB; the limit is 32 MB'")
    assert page.faults == []
    assert all(url.startswith((page.home, "data:", "blob:")) for url in page.asked)


def test_backbones_are_selected(page):
    drop(page, 0, photo_file(), "a.png")
    wait_for(page, "tower=second", 1)
    page.select_option("#tower-1 select", label="first")
    wait_for(page, "tower=first", 2)
    page.select_option("#tower-1 select", label="Compare with …")
    page.locator("#tower-1 img").first.wait_for(state="detached")
    assert page.locator("#tower-0 img").count() == 1


@pytest.mark.parametrize("max_runs", [1])
def test_requests_are_repeated_while_the_server_is_busy(page):
    responses = []
    page.on("response", lambda response: responses.append(response.status))
    drop(page, 0, photo_file(), "a.png")
    wait_for(page, "colors", 2)  # the backbones of both columns are asked at once, and one finds the queue full
    assert 503 in responses
