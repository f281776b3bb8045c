"""The explorer's page in Chromium, if Chromium and Playwright are installed."""

import base64
import shutil
from contextlib import contextmanager

import pytest
from helpers.explorer_server import serving
from helpers.tiny_clip import tiny_clip
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


@contextmanager
def opened(explorer):
    """The page of an explorer."""
    if BROWSER is None:
        pytest.skip("no Chromium")
    with serving(explorer) as server, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.asked, page.faults = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda fault: page.faults.append(fault))
        page.on("console", lambda line: page.faults.append(line.text) if "Content Security" in line.text else None)
        page.home = f"http://127.0.0.1:{server.address[1]}/"
        page.goto(page.home)
        yield page
        browser.close()


@pytest.fixture
def page(max_runs, monkeypatch):
    monkeypatch.setattr("pe_dense.apps.explorer.app.MAX_RUNS", max_runs)
    towers = dict(first=tiny_tower(), second=tiny_tower(arch=dict(ARCH, layers=2)))
    with opened(Explorer(towers, max_size=128)) as page:
        yield page


@pytest.fixture
def words_page():
    clip = tiny_clip()
    with opened(Explorer(dict(spatial=tiny_tower(), core=clip.visual), dict(core=clip), max_size=128)) as page:
        yield page


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
    page.wait_for_function(
        "() => document.getElementById('error').textContent == 'large.png is 33 MB; the limit is 32 MB'"
    )
    assert page.faults == []
    assert all(url.startswith((page.home, "data:", "blob:")) for url in page.asked)


def test_kinds_of_pictures(page):
    drop(page, 0, photo_file(), "a.png")
    wait_for(page, "colors", 2)
    assert not page.is_visible("#clusters") and not page.is_visible("#tau")
    page.select_option("#kind", "clusters")
    wait_for(page, "clusters", 2)
    page.fill("#clusters", "3")
    wait_for(page, "count=3", 2)
    assert page.inner_text("#tower-0 figure:nth-child(1) figcaption").startswith("3 clusters")
    page.select_option("#kind", "tokencut")
    page.fill("#tau", "0.5")
    wait_for(page, "tau=0.5", 2)
    page.select_option("#kind", "lost")
    wait_for(page, "algorithm=lost", 2)
    assert not page.is_visible("#clusters") and not page.is_visible("#tau") and page.faults == []


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


def compare(page, text):
    """Type words; wait until the first image is compared with them, and return the names of its pictures."""
    page.fill("#words-text", text)
    with page.expect_response(lambda response: "/words?" in response.url):
        page.keyboard.press("Enter")
    page.wait_for_selector("#words-0[aria-busy=false]", state="attached")
    return page.locator("#words-0 figcaption span").all_inner_texts()


def test_words(words_page):
    page = words_page
    drop(page, 0, photo_file(), "first image.png")
    page.wait_for_selector("#drop-0 img")
    assert compare(page, "a dog, grass; lawn, <b>猫</b>") == ["Most similar word", "a dog", "grass", "<b>猫</b>"]
    legend = page.locator("#words-0 .legend li").all_inner_texts()
    assert [entry.splitlines()[0] for entry in legend] == ["a dog", "grass", "<b>猫</b>"]
    shares = [int(entry.splitlines()[1].strip("<% ")) for entry in legend]
    assert 97 <= sum(shares) <= 103
    low, high = page.locator("#words-0 .scale").first.inner_text().split()
    assert -1 <= float(low) < float(high) <= 1
    sizes = page.eval_on_selector_all("#words-0 img", "images => images.map((image) => image.naturalWidth)")
    assert sizes == [480] * 4

    # Every setting of the comparison changes it, for each image.
    before = page.get_attribute("#words-0 img >> nth=0", "src")
    options = page.locator("#words-patches option").all_inner_texts()
    assert options == ["pooled", "proxy: spatial", "self", "sclip", "clearclip", "naclip", "naive"]
    for option in ("proxy: spatial", "self", "naive"):
        with page.expect_response(lambda response: "/words?" in response.url) as answer:
            page.select_option("#words-patches", label=option)
        assert answer.value.status == 200
        page.wait_for_function("before => document.querySelector('#words-0 img').src != before", arg=before)
        before = page.get_attribute("#words-0 img >> nth=0", "src")
    page.fill("#words-background", "1")
    page.wait_for_function("() => document.querySelectorAll('#words-0 .legend li').length == 4")
    assert page.locator("#words-0 .legend li").last.inner_text().split() == ["none", "100%"]
    drop(page, 1, photo_file(seed=1), "b.png")
    page.locator("#words-1 img").nth(3).wait_for()
    with page.expect_download() as download:
        page.locator("#words-1 figcaption a").first.click()
    assert download.value.suggested_filename == "b_core_words.png"

    # A mistake is told where it was made, and the next words are shown.
    assert compare(page, "dog, dog") == []
    assert page.inner_text("#words-note") == "class names are given twice: dog"
    assert compare(page, "cat") == ["Most similar word", "cat"]
    long = "word " * 15
    compare(page, long)
    assert page.inner_text("#words-note") == f"'{long.strip()}' is longer than the model's context and was truncated"
    assert page.faults == []
    assert all(url.startswith((page.home, "data:", "blob:")) for url in page.asked)


def test_without_a_text_tower_the_reason_is_told(page):
    assert page.is_disabled("#words-text") and page.is_disabled("#words-tower")
    expected = "first has no text tower; load PE-Core-B16-224 · second has no text tower; load PE-Core-B16-224"
    assert page.inner_text("#words-note") == expected


def test_backbones_without_a_text_tower_cannot_be_chosen(words_page):
    options = words_page.locator("#words-tower option")
    assert options.all_inner_texts() == ["spatial (no text tower)", "core"]
    assert options.first.is_disabled() and words_page.input_value("#words-tower") == "1"
    assert words_page.inner_text("#words-note") == ""
