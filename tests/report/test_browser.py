"""The HTML report in a real browser, headless; skipped where there is none."""

import json
import shutil

import pytest

from tests import samples
from varshift_cli.report import FORMATS

pytest.importorskip("matplotlib", reason="the figures of the HTML report need matplotlib")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in BROWSERS if (found := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here"),
]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for each in ("headless=new", "no-sandbox", "disable-gpu", f"user-data-dir={profile}"):
        options.add_argument(f"--{each}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_window_size(1280, 900)
    yield driver
    driver.quit()


@pytest.fixture
def opened(chrome, tmp_path):
    """Open the page of a sample; the driver, its logs emptied before."""

    def open_page(name):
        path = tmp_path / f"{name}.html"
        path.write_text(FORMATS["html"].render(samples.EVERYTHING[name]), encoding="utf-8")
        for log in ("performance", "browser"):
            chrome.get_log(log)
        chrome.get(path.as_uri())
        return chrome

    yield open_page
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def requests_of(driver):
    messages = [json.loads(each["message"])["message"] for each in driver.get_log("performance")]
    return [
        each["params"]["request"]["url"]
        for each in messages
        if each["method"] == "Network.requestWillBeSent"
    ]


def column(driver, index):
    """What the visible rows of the table hold in one column."""
    script = (
        "return [...document.querySelectorAll('.sortable tbody tr')].filter(row => !row.hidden)"
        f".map(row => row.cells[{index}].textContent)"
    )
    return driver.execute_script(script)


def click(driver, selector):
    driver.execute_script("arguments[0].click()", driver.find_element(By.CSS_SELECTOR, selector))


def header(driver, title):
    """The place of a column, and its button."""
    cells = driver.find_elements(By.CSS_SELECTOR, ".sortable thead th")
    titles = [each.get_attribute("textContent") for each in cells]
    return titles.index(title), cells[titles.index(title)].find_element(By.TAG_NAME, "button")


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_quiet(opened, name):
    """No console message, and no request but for the page itself and its empty icon."""
    driver = opened(name)

    assert driver.get_log("browser") == []
    assert {url for url in requests_of(driver) if not url.startswith("data:")} == {
        driver.current_url
    }
    assert driver.execute_script("return typeof window.injected") == "undefined"


def test_no_request_can_leave(opened):
    """Even a script that ran in the page could send nothing: the policy forbids it."""
    driver = opened("hostile")

    refused = driver.execute_async_script(
        "const done = arguments[0];"
        "const seen = [];"
        "addEventListener('securitypolicyviolation', e => seen.push(e.effectiveDirective));"
        "const image = new Image(); image.src = 'http://127.0.0.1:9/x.png';"
        "const style = document.createElement('link'); style.rel = 'stylesheet';"
        "style.href = 'http://127.0.0.1:9/x.css'; document.head.append(style);"
        "const script = document.createElement('script');"
        "script.textContent = 'window.injected = 1';"
        "document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', '<b onclick=1></b>');"
        "fetch('http://127.0.0.1:9/').catch(() => setTimeout(() => done(seen), 200));"
    )

    assert set(refused) == {
        "img-src",
        "style-src-elem",
        "connect-src",
        "script-src-elem",
        "script-src-attr",
    }
    assert driver.execute_script("return typeof window.injected") == "undefined"
    assert {url for url in requests_of(driver) if url.startswith("http")} <= {
        "http://127.0.0.1:9/x.png",
        "http://127.0.0.1:9/x.css",
        "http://127.0.0.1:9/",
    }


def test_sorting(opened):
    """A click sorts by a column, numbers as numbers and worst first; a second turns it round."""
    driver = opened("failing")
    index, button = header(driver, "shift")
    shifts = [f"{each.shift:.2f}" for each in samples.failing().layers]

    driver.execute_script("arguments[0].click()", button)
    assert column(driver, index) == sorted(shifts, key=float, reverse=True)
    driver.execute_script("arguments[0].click()", button)
    assert column(driver, index) == sorted(shifts, key=float)
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"

    place, names = header(driver, "layer")
    driver.execute_script("arguments[0].click()", names)
    assert column(driver, place)[:4] == ["bn", "body.0.bn1", "body.0.bn2", "body.0.bn3"]
    assert column(driver, place)[-1] == "body.11.bn3"
    click(driver, ".sortable thead th:first-child button")
    assert column(driver, 0) == [str(index + 1) for index in range(len(shifts))]


def test_unknown_sorts_last(opened):
    """A layer without a figure stands last, whichever way the others are sorted."""
    driver = opened("awkward")
    index, button = header(driver, "shift")

    for _ in range(2):
        driver.execute_script("arguments[0].click()", button)
        assert column(driver, index)[-1] == "-"


def test_filtering(opened):
    """Words, levels and the gate narrow the table down, together; how many are left is said."""
    driver = opened("failing")
    find = driver.find_element(By.ID, "find")

    find.send_keys("bn3 DROPOUT")
    assert column(driver, 1) == [f"body.{index}.bn3" for index in range(12)]
    assert driver.find_element(By.ID, "shown").get_property("value") == "12 of 37 layers"
    click(driver, "input[name=level][value=severe]")
    assert column(driver, 1) == ["body.11.bn3"]
    click(driver, "input[name=level][value=severe]")
    find.clear()
    find.send_keys(" ")
    assert len(column(driver, 1)) == 37
    click(driver, "#only-failing")
    assert len(column(driver, 1)) == 13


def test_all_figures(opened):
    """Further columns are hidden until asked for."""
    driver = opened("failing")
    _, button = header(driver, "median")

    assert not button.is_displayed()
    click(driver, "#more")
    assert button.is_displayed()


def test_figure_leads_to_its_row(opened):
    """A click on a layer in a figure shows its row, also when a filter has hidden it."""
    driver = opened("failing")
    driver.find_element(By.ID, "find").send_keys("nothing like it")
    assert column(driver, 1) == []

    driver.execute_script("location.hash = 'layer-3'")
    assert (
        driver.execute_async_script(
            "const done = arguments[0]; setTimeout(() => done(document.querySelector('tr:target')"
            ".cells[1].textContent), 100)"
        )
        == "body.0.bn3"
    )
    assert len(column(driver, 1)) == 37


@pytest.mark.parametrize(
    ("media", "scheme", "paper"),
    [
        ("screen", "light", "rgb(255, 255, 255)"),
        ("screen", "dark", "rgb(20, 24, 31)"),
        ("print", "dark", "rgb(255, 255, 255)"),
    ],
)
def test_colours(opened, media, scheme, paper):
    """Light and dark follow the reader's screen, figures too; paper is always white."""
    driver = opened("failing")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    style = "return getComputedStyle({}).{}"
    assert driver.execute_script(style.format("document.body", "backgroundColor")) == paper
    name = driver.execute_script(style.format("document.querySelector('svg .name')", "fill"))
    assert (name == "rgb(163, 172, 186)") == (media == "screen" and scheme == "dark")
    shown = driver.find_element(By.CSS_SELECTOR, ".controls").is_displayed()
    assert shown == (media == "screen")


def test_narrow_screen(opened):
    """On a telephone the page itself does not scroll sideways."""
    driver = opened("failing")
    driver.set_window_size(500, 900)
    try:
        wide = driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
    finally:
        driver.set_window_size(1280, 900)
