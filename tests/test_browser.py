"""The style explorer in a real browser: JupyterLab in headless Chromium. Slow tier: `make test PYTEST_ARGS="-m slow"`.

It needs Chromium with its driver (Debian: chromium chromium-driver) and `pip install -e '.[browser]'`; without them it
is skipped. Screenshots are left in the folder that VTOONIFY_SCREENSHOTS names, if it does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "07_style_explorer.ipynb"
HARMLESS = re.compile(r"favicon|colab-badge|source ?map|WebGL|GPU stall|Lumino|/api/(me|kernels|contents)|40[34]", re.I)
PIXELS = """
const shown = [...document.querySelectorAll('img.widget-image, .widget-image img')];
const image = shown.filter(i => i.naturalWidth > 100)[0];
if (!image || !image.complete) return null;
const canvas = document.createElement('canvas');
[canvas.width, canvas.height] = [64, 64];
const context = canvas.getContext('2d');
context.drawImage(image, 0, 0, 64, 64);
return [...context.getImageData(0, 0, 64, 64).data].filter((_, i) => i % 4 < 3);
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab that serves a copy of the notebook; fast mode."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: pip install -e '.[local]'")
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(NOTEBOOK, folder / NOTEBOOK.name)
    settings = {"notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
                "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
    for name, values in settings.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    environment = {**os.environ, "VTOONIFY_NOTEBOOK": "fast", "PYTHONPATH": str(ROOT),
                   "JUPYTER_CONFIG_DIR": str(folder), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    log = (folder / "log.txt").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=8991", "--ServerApp.token=",
         "--ServerApp.password=", f"--ServerApp.root_dir={folder}"],
        env=environment, stdout=log, stderr=log)
    try:
        wait(lambda: "is running at" in (folder / "log.txt").read_text(), 90, "JupyterLab did not start")
        yield f"http://localhost:8991/lab/tree/{NOTEBOOK.name}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium with software WebGL."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install -e '.[browser]'")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("Chromium and its driver are not installed (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1500,2200", "--use-angle=swiftshader",
                     "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


def wait(what, seconds: float, complaint: str):
    """The first true answer of `what()`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(complaint)


def screenshot(browser, name: str) -> None:
    folder = os.environ.get("VTOONIFY_SCREENSHOTS")
    if folder:
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def run_all_cells(browser) -> None:
    """By the command palette."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-MarkdownCell")[0].click()
    ActionChains(browser).key_down(Keys.CONTROL).key_down(Keys.SHIFT).send_keys("c").key_up(Keys.SHIFT).key_up(
        Keys.CONTROL).perform()
    field = wait(lambda: [f for f in browser.find_elements(By.CSS_SELECTOR, ".lm-CommandPalette-input, "
                          ".jp-ModalCommandPalette input") if f.is_displayed()], 30, "no command palette")[0]
    field.send_keys("run all cells")
    time.sleep(1)
    field.send_keys(Keys.ENTER)


def test_the_explorer_answers_and_ipyvolume_shows(lab, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(lab)
    wait(lambda: browser.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-CodeCell"), 120, "the notebook did not open")
    time.sleep(5)  # until the kernel is there
    run_all_cells(browser)
    picture = wait(lambda: browser.execute_script(PIXELS), 400, "the panel shows no picture")
    wait(lambda: browser.find_elements(By.CSS_SELECTOR, ".jp-Notebook canvas"), 300, "ipyvolume shows nothing")
    wait(lambda: "stamp: fast mode" in browser.find_element(By.CSS_SELECTOR, ".jp-Notebook").text, 300,
         "the notebook did not run to its end")
    panel = browser.find_elements(By.CSS_SELECTOR, ".widget-tab, .jupyter-widget-tab")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", panel[0])
    time.sleep(2)
    screenshot(browser, "explorer")
    picture = browser.execute_script(PIXELS)

    for width in (1000, 1280, 1500):  # the picture keeps its size, and what does not fit beside it goes below
        browser.set_window_size(width, 2200)
        time.sleep(2)
        sizes = browser.execute_script("""
            const shown = [...document.querySelectorAll('img.widget-image, .widget-image img')];
            const part = i => i.getBoundingClientRect().width;
            return [part(shown.filter(i => i.naturalWidth > 100)[0]),
                    part(document.querySelector('.widget-tab, .jupyter-widget-tab'))];""")
        assert min(sizes) >= 330 and sizes[0] >= 395, (width, sizes)
        screenshot(browser, f"explorer_{width}")
    slider = "./ancestor::*[contains(@class,'widget-slider')][1]"
    handle = next(h for h in browser.find_elements(By.CSS_SELECTOR, ".noUi-handle")
                  if h.is_displayed() and "structure" in h.find_element(By.XPATH, slider).text)
    for _ in range(3):
        handle.send_keys(Keys.PAGE_DOWN)
    changed = wait(lambda: browser.execute_script(PIXELS) not in (None, picture), 60, "the slider changes nothing")
    assert changed
    screenshot(browser, "moved")
    canvas = browser.find_elements(By.CSS_SELECTOR, ".jp-Notebook canvas")[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    time.sleep(3)
    screenshot(browser, "space")
    wrong = [entry["message"] for entry in browser.get_log("browser")
             if entry["level"] == "SEVERE" and not HARMLESS.search(entry["message"])]
    assert not wrong, wrong
