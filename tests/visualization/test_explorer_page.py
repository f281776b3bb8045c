"""The page in a browser: where Playwright and Chromium are installed."""

import base64
import shutil
from threading import Thread

import pytest
from helpers.tiny_towers import ARCH, photo_file, tiny_tower

from pe_dense.apps.explorer import Explorer, make_server

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DROP = """([content, name]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type: "image/png" }));
    return data;
}"""


@pytest.fixture
def page():
    if BROWSER is None:
        pytest.skip("no Chromium")
    towers = dict(first=tiny_tower(), second=tiny_tower(arch=dict(ARCH, layers=2)))
    server = make_server(Explorer(towers, max_size=128))
    Thread(target=server.serve_forever, daemon=True).start()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.asked, page.faults = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda fault: page.faults.append(fault))
        page.home = f"http://127.0.0.1:{server.server_address[1]}/"
        page.goto(page.home)
        yield page
        browser.close()
    server.shutdown()
    server.server_close()


def drop(page, number, content, name):
    data = page.evaluate_handle(DROP, [base64.b64encode(content).decode(), name])
    page.dispatch_event(f"#drop-{number}", "drop", dict(dataTransfer=data))


def wait_for(page, what, count):
    page.locator(f".tower .frame[data-path*='{what}'] img").nth(count - 1).wait_for(timeout=60_000)


def test_exploring(page):
    drop(page, 0, photo_file(), "first photo.png")
    wait_for(page, "colours", 2)  # a photo in two towers
    drop(page, 1, photo_file(seed=1), "b.png")
    wait_for(page, "colours", 4)
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
    assert download.value.suggested_filename == "first_photo_first_layer0_pca.png"

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
    page.wait_for_function("document.getElementById('error').textContent == 'large.png has 33 MB, more than 32 MB'")
    assert page.faults == []
    assert all(url.startswith((page.home, "data:", "blob:")) for url in page.asked)


def test_towers_are_chosen(page):
    drop(page, 0, photo_file(), "a.png")
    wait_for(page, "tower=second", 1)
    page.select_option("#tower-1 select", label="first")
    wait_for(page, "tower=first", 2)
    page.select_option("#tower-1 select", label="Compare with …")
    page.locator("#tower-1 img").first.wait_for(state="detached")
    assert page.locator("#tower-0 img").count() == 1
