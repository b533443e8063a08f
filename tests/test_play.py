"""The page to play with: its numbers are Python's, by mouse and by keyboard, in both languages."""

import re

import numpy as np
import pytest
import torch
from conftest import ROOT, pytorch
from torch.nn import functional

PLAY = ROOT / "Question_semaseg" / "play"
PAGES = ("play.html", "play.ja.html")


@pytest.fixture
def page(browser, request):
    """A page, as a phone shows it; that nothing goes wrong or is fetched from elsewhere is checked at the end."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page, troubles, requests = context.new_page(), [], []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((PLAY / getattr(request, "param", PAGES[0])).as_uri())
    yield page
    assert troubles == []
    allowed = {(PLAY / name).as_uri() for name in (*PAGES, "play.js", "play.css")}
    assert {url for url in requests if not url.startswith("data:")} <= allowed
    context.close()


def read(page, name):
    """Return what stands in an element: a number, None for a dash."""
    text = page.locator(f"#{name}").text_content()
    return None if text == "–" else float(text.replace("∞", "inf"))


def read_cells(page):
    """Return the classes that are painted, and the truth: two arrays (12, 12)."""
    cells = page.locator("[role=gridcell]").evaluate_all(
        "all => all.map(cell => [cell.dataset.painted, cell.className])"
    )
    painted, truth = np.array([[int(painted), int(name[-1])] for painted, name in cells]).T
    return painted.reshape(12, 12), truth.reshape(12, 12)


def check_measures(page):
    """Check all that the page shows of the painted mask against the answer's measure; return it."""
    painted, truth = read_cells(page)
    wanted = pytorch("semaseg_test").measure(painted, truth)
    for index, iou in enumerate(wanted["iou"].values()):
        assert read(page, f"iou{index}") == (None if iou is None else pytest.approx(iou, abs=0.00051))
        assert read(page, f"intersection{index}") == ((painted == index) & (truth == index)).sum()
        assert read(page, f"union{index}") == ((painted == index) | (truth == index)).sum()
    assert read(page, "miou") == pytest.approx(wanted["miou"], abs=0.00051)
    assert read(page, "accuracy") == pytest.approx(wanted["pixel_accuracy"], abs=0.00051)
    return wanted


def test_measures_of_any_masks(page):
    rng, measure = np.random.default_rng(0), pytorch("semaseg_test").measure
    for classes in (1, 2, 3, 3):
        truth, prediction = rng.integers(classes, size=(2, 40))
        wanted = measure(prediction, truth)
        found = page.evaluate(
            "([truth, prediction]) => measure(truth, prediction)", [truth.tolist(), prediction.tolist()]
        )
        assert [one["iou"] for one in found["classes"]] == list(wanted["iou"].values())
        assert (found["miou"], found["accuracy"]) == pytest.approx(
            (wanted["miou"], wanted["pixel_accuracy"]), rel=1e-12
        )


def test_painting_by_mouse_and_by_keyboard(page):
    start = check_measures(page)
    page.click("#same")
    assert check_measures(page)["miou"] == 1
    page.click("#shifted")
    assert check_measures(page) == start
    page.click("#empty")
    assert check_measures(page)["iou"]["akahara"] == 0 and read(page, "accuracy") > 0.6  # which is the point
    page.check("input[name=brush][value='2']")
    boxes = page.locator("[role=gridcell]").evaluate_all(
        "all => all.map(cell => cell.getBoundingClientRect().toJSON())"
    )
    y = boxes[12 * 8]["y"] + 5
    page.mouse.move(boxes[12 * 8 + 1]["x"] + 5, y)
    page.mouse.down()
    for column in (2, 3):
        page.mouse.move(boxes[12 * 8 + column]["x"] + 5, y)
    page.mouse.up()
    page.mouse.move(boxes[12 * 8 + 9]["x"] + 5, y)  # without a button down
    painted, _ = read_cells(page)
    assert painted.sum() == 2 * 3 and (painted[8, 1:4] == 2).all()
    assert check_measures(page)["iou"]["madara"] > 0
    # The keyboard goes on from there; the grid is one stop of the tab key, and nobody leaves it by an arrow.
    page.check("input[name=brush][value='1']")
    page.locator("[role=gridcell][tabindex='0']").focus()
    for key in ("Space", "ArrowRight", "ArrowUp", "Enter", "End", *["ArrowLeft"] * 13, " "):
        page.keyboard.press(key)
    painted, _ = read_cells(page)
    assert (painted[8, 1], painted[7, 2], painted[7, 0], (painted == 1).sum()) == (1, 1, 1, 3)
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    check_measures(page)
    label = page.locator("[role=gridcell]").nth(12 * 7).get_attribute("aria-label")
    assert label == "row 8, column 1: akahara, truth background"


def set_slider(page, name, value):
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )


def test_sigmoid_and_loss(page):
    for target in (1, 0):
        page.check(f"input[name=target][value='{target}']")
        for logit in (-20, -5.3, 0, 0.1, 2, 16.6, 17, 20):
            set_slider(page, "logit", logit)
            tensor = torch.tensor(float(logit), dtype=torch.float64)
            loss = functional.binary_cross_entropy_with_logits(tensor, torch.tensor(target).double())
            assert read(page, "probability") == pytest.approx(float(torch.sigmoid(tensor)), abs=6e-7)
            assert read(page, "loss") == pytest.approx(float(loss), abs=6e-7)
            probability = np.float32(1) / (np.float32(1) + np.exp(-np.float32(logit)))
            with np.errstate(divide="ignore"):
                naive = -np.log(probability if target else np.float32(1) - probability)
            assert read(page, "naive") == pytest.approx(float(naive), rel=1e-5, abs=6e-7)
            height = {name: float(page.locator(f"#{name}").get_attribute("cy")) for name in ("sigmoid-dot", "loss-dot")}
            assert height["sigmoid-dot"] == pytest.approx(110 - 100 * float(torch.sigmoid(tensor)), abs=0.06)
            assert height["loss-dot"] == pytest.approx(110 - 5 * float(loss), abs=0.06)
    # What the page says.
    assert read(page, "naive") == np.inf
    set_slider(page, "logit", 16.6)
    assert read(page, "naive") < np.inf
    set_slider(page, "logit", 17)
    assert read(page, "naive") == np.inf and read(page, "loss") == 17
    assert page.locator("#logit-value").text_content() == "17.0"
    page.locator("#logit").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#logit-value").text_content() == "17.1"


def test_softmax_and_loss(page):
    for logits in ((1, 2, -1), (0, 0, 0), (10, -10, 9.9), (-3.2, 4, 4)):
        for index, logit in enumerate(logits):
            set_slider(page, f"logit{index}", logit)
        tensor = torch.tensor(logits, dtype=torch.float64)
        for index, probability in enumerate(torch.softmax(tensor, 0).tolist()):
            assert read(page, f"probability{index}") == pytest.approx(probability, abs=0.000051)
            page.check(f"input[name=class][value='{index}']")
            loss = functional.cross_entropy(tensor, torch.tensor(index)).item()
            assert read(page, "softmax-loss") == pytest.approx(loss, abs=0.000051)
    assert page.evaluate("softmaxLoss([1000, 0, -1000], 2)") == 2000  # nothing overflows
    assert page.evaluate("softmax([1000, 0, -1000])") == [1, 0, 0]


def find_sizes(size):
    """Return the sizes of the maps in the answer's network: [(into a block, out of it), ...], and the crops."""
    answer, blocks, crops = pytorch("unet"), [], []
    with torch.device("meta"):
        network = answer.Network().eval()
        for block in (*network.encoder, *network.decoder[1::2]):
            block.register_forward_hook(lambda _, x, y: blocks.append([x[0].shape[2], y.shape[2]]))
        crop = answer.crop
        try:
            answer.crop = lambda features, size: crops.append([features.shape[2], size]) or crop(features, size)
            network(torch.empty(1, 3, size, size))
        finally:
            answer.crop = crop
    return blocks, crops


@pytest.mark.parametrize("size", (188, 236, 572))
def test_sizes_are_those_of_the_network(page, size):
    page.fill("#size", str(size))
    blocks, crops = find_sizes(size)
    rows = page.locator("#levels tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    )
    rows = [[[int(number) for number in re.findall(r"\d+", text)] for text in row] for row in rows]
    channels, down, skips, up = zip(*rows, strict=True)
    assert [*channels] == [[number] for number in pytorch("unet").CHANNELS]
    assert [*down, *up[3::-1]] == blocks and [*skips[3::-1]] == crops and up[4] == skips[4] == []
    assert (
        page.locator("#sizes-result").text_content().startswith(f"{size} x {size} gives {size - 184} x {size - 184}:")
    )


def test_sizes_that_are_possible_are_those_of_the_answer(page):
    possible = pytorch("unet").NUMBERS["size"][1]
    kind = """size => {
        document.getElementById("size").value = size;
        document.getElementById("size").dispatchEvent(new Event("input"));
        return [document.getElementById("sizes-result").dataset.kind, document.getElementById("levels").rows.length];
    }"""
    for size in (*range(180, 240), 571, 572, 573, *range(2040, 2064)):
        wanted = "outside" if not 188 <= size <= 2044 else "possible" if size in possible else "odd"
        assert page.evaluate(kind, size) == [wanted, 5 if wanted == "possible" else 0], size
    for wrong in ("", "1.5", "-3"):
        assert page.evaluate(kind, wrong) == ["outside", 0]
    page.fill("#size", "570")
    text = page.locator("#sizes-result").text_content()
    assert text == "570 x 570 is not possible: 279 is odd, and cannot be halved. Possible are 556, 572."
    assert page.locator("#size").get_attribute("aria-invalid") == "true"
    for button, number in (("larger", "588"), ("smaller", "572"), ("smaller", "556")):
        page.click(f"#{button}")
        assert page.input_value("#size") == number
    for start, button, number in (("188", "smaller", "188"), ("2044", "larger", "2044"), ("", "larger", "188")):
        page.fill("#size", start)
        page.click(f"#{button}")
        assert page.input_value("#size") == number


@pytest.mark.parametrize("page", PAGES, indirect=True)
def test_page_on_a_phone_light_and_dark(page):
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert len(grounds) == 2
    inside = "[...document.querySelectorAll('section *')].every(part => part.getBoundingClientRect().right <= 380)"
    assert page.evaluate(inside)
    unnamed = "[...document.querySelectorAll('input')].filter(input => !input.labels[0]?.textContent.trim())"
    assert page.evaluate(f"{unnamed}.length") == 0
    assert not re.search(r"[{}]", page.evaluate("document.body.innerText"))
    assert "{" not in page.locator("[role=gridcell]").first.get_attribute("aria-label")
    page.click("nav a[hreflang]")
    assert page.evaluate("document.documentElement.lang") == ("en" if page.url.endswith("play.html") else "ja")


def test_both_pages_are_built_alike_and_the_script_is_small():
    texts = [(PLAY / name).read_text("utf-8") for name in PAGES]
    tags = [re.findall(r'<(?!link|a )[a-z0-9]+|id="[^"]+"|for="[^"]+"|value="[^"]+"|\{\w+\}', text) for text in texts]
    messages = [{part for part in found if part[0] == "{"} for found in tags]
    assert [part for part in tags[0] if part[0] != "{"] == [part for part in tags[1] if part[0] != "{"]
    assert messages[0] == messages[1]
    numbers = [set(re.findall(r"\d{2,}|\d+\.\d+", re.sub(r"<[^>]*>", " ", text))) for text in texts]
    assert numbers[0] == numbers[1] and "1.0986" in numbers[0]
    assert len((PLAY / "play.js").read_text("utf-8").splitlines()) <= 300
