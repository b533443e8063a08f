"""tools/build_site.py: the whole site, built once and read as a reader would, in Chromium; and small pages."""

import functools
import html
import http.server
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import build_site
import pytest
from conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*Check CHANGES for Sphinx API")  # how MyST calls Sphinx
LESSON = "Question_voc/lesson/02_atrous"  # to which the tests add a comparison, and a link to a page to play with


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of the repository in which an exercise has been compared, and its page links to one to play with."""
    copy = tmp_path_factory.mktemp("repository") / "いもり & newts"
    unwanted = (ROOT / ".gitignore").read_text("utf-8").replace("/\n", "\n").split()
    unwanted = [pattern.rpartition("/")[2] for pattern in unwanted]
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", *unwanted))
    page = copy / f"{LESSON}.md"
    link = "[Play](../../Question_semaseg/play/play.html#sigmoid), [in Japanese](02_atrous.ja.md#ヒント)"
    page.write_text(f"{page.read_text('utf-8')}\n{link}\n", "utf-8")
    compared = copy / "outputs" / "compare" / "atrous" / "index.html"
    compared.parent.mkdir(parents=True)
    compared.write_text("<!doctype html><title>compared</title><body>", "utf-8")
    return copy


@pytest.fixture(scope="module")
def site(repository):
    build_site.main([], repository)
    return repository / "outputs" / "site"


def list_pages(site):
    """Return the paths of all pages; the theme leaves a template among its styles."""
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


@functools.cache
def read(path):
    return path.read_text("utf-8")


def find_links(path):
    """Return the targets of all links, pictures, scripts and styles of a page."""
    return {html.unescape(link) for link in re.findall(r'<[^<>]+\s(?:href|src)="([^"]*)"', read(path))}


def test_every_page_is_there_in_both_languages(repository, site):
    pages = {path for pattern in build_site.PAGES for path in repository.glob(pattern)}
    assert len(pages) > 30
    for path in pages:
        page = path.relative_to(repository).as_posix()
        name = re.sub("README$", "index", page.removesuffix(".md").removesuffix(".ja"))
        title = re.search("^# (.*)", path.read_text("utf-8"), re.MULTILINE)[1].replace("`", "")
        for folder, language in ((site, "en"), (site / "ja", "ja")):
            if page.endswith(".ja.md") == (language == "ja") or not path.with_suffix(".ja.md").exists():
                if language == "en" and page.endswith(".ja.md"):
                    continue
                text = read(folder / f"{name}.html")
                found = re.sub("<.*?>", "", re.search("<h1>(.*?)<a", text)[1])
                assert html.unescape(found) == title
                assert f'<html lang="{"ja" if page.endswith(".ja.md") else "en"}"' in text


def test_no_link_is_broken_and_none_loads_from_elsewhere(site):
    pages = {path: set(re.findall(r'\sid="([^"]+)"', read(path))) for path in list_pages(site)}
    assert len(pages) > 100
    for path in pages:
        for link in find_links(path):
            target = urllib.parse.urlsplit(link)
            if target.scheme in ("http", "https", "mailto", "data"):
                continue
            file = Path(path, "..", urllib.parse.unquote(target.path)).resolve() if target.path else path
            assert file.exists(), f"{path}: {link}"
            if target.fragment and file in pages and not target.fragment.startswith("main-content"):
                assert urllib.parse.unquote(target.fragment) in pages[file], f"{path}: {link}"
        loaded = re.findall(r'<(?:script|img|iframe|source)\b[^>]*\ssrc="(\w+:)?//', read(path))
        loaded += re.findall(r'<link\b[^>]*rel="(?:stylesheet|preload|icon)"[^>]*href="(\w+:)?//', read(path))
        assert not loaded, path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:|@import [\"']?\w+:", read(path)), path


def open_page(browser, path, troubles, width=1280, scheme="light", context=None, query=""):
    """Open a page of the site from the file system, noting in troubles what goes wrong and what is asked elsewhere."""
    context = context or browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    watch(page, troubles, "file:")
    page.goto(path.as_uri() + query)
    return page


def watch(page, troubles, home):
    """Note in troubles what goes wrong on a page, and what it asks of others than home."""
    page.on("console", lambda message: message.type in ("error", "warning") and troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    # What is still being fetched when the next page is opened is given up; a file that is not there fails otherwise.
    page.on(
        "requestfailed",
        lambda request: "ERR_ABORTED" in request.failure or troubles.append(f"{request.failure}: {request.url[:200]}"),
    )
    page.on("request", lambda request: request.url.startswith((home, "data:")) or troubles.append(request.url[:200]))


# Opens all folds and tabs of a page, and returns which parts hold more than they show: it, its article, a link below.
CROWDED = """() => {
    document.querySelectorAll("details").forEach((fold) => (fold.open = true));
    document.querySelectorAll(".sd-tab-content").forEach((tab) => (tab.style.display = "block"));
    const parts = [document.documentElement, ...document.querySelectorAll(".bd-article-container, .prev-next-area a")];
    return parts.filter((part) => part.scrollWidth > part.clientWidth).map((part) => part.outerHTML.slice(0, 200));
}"""


def test_pages_on_a_phone(site, browser):
    """Each page in one of its languages, turn by turn."""
    troubles = []
    page = open_page(browser, site / "index.html", troubles, width=390)
    pages = [path.relative_to(site / "ja") for path in list_pages(site / "ja")]
    pages = [path for path in pages if path.parent.name not in ("answers", "compare")]
    pages.append(Path("Question_voc", "answers", "02_atrous.html"))
    assert len(pages) > 30
    for number, name in enumerate(pages):
        page.goto((site / ("ja", "")[number % 2] / name).as_uri(), wait_until="domcontentloaded")
        assert page.evaluate(CROWDED) == [], name
    page.context.close()
    assert troubles == []


def test_no_serious_fault_of_accessibility(site, browser):
    """axe looks at each kind of page, in both languages and both modes, with all folds open."""
    from axe_playwright_python.sync_playwright import Axe

    pages = [("index.html", "light"), (f"{LESSON}.html", "light"), (f"ja/{LESSON}.html", "dark")]
    pages += [("Question_voc/answers/01_voc_dataset.html", "dark"), ("search.html", "light")]
    faults = []
    for name, scheme in pages:
        page = open_page(browser, site / name, faults, scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        for violation in (
            Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
        ):
            if violation["impact"] in ("serious", "critical"):
                faults.append((name, violation["id"], [node["html"][:200] for node in violation["nodes"][:3]]))
        page.context.close()
    assert faults == []


def chosen(page):
    """Return the frameworks whose tabs are shown on a page, without repetition."""
    return set(map(str.strip, page.locator(".sd-tab-set > input:checked + label").all_text_contents()))


def test_tabs_follow_the_reader(site, browser):
    troubles = []
    page = open_page(browser, site / f"{LESSON}.html", troubles)
    assert chosen(page) == {"PyTorch"}
    tab = page.locator("label.sd-tab-label", has_text="Keras").first
    tab.scroll_into_view_if_needed()
    top = tab.bounding_box()["y"]
    tab.click()
    assert chosen(page) == {"Keras"} and page.locator(".sd-tab-set").count() > 1
    assert tab.bounding_box()["y"] == pytest.approx(top, abs=2)  # the page does not jump
    for name in (f"ja/{LESSON}.html", "Question_street/lesson/03_street_train.html"):  # also in a page opened later
        assert chosen(open_page(browser, site / name, troubles, context=page.context)) == {"Keras"}
    page.goto((site / "Question_voc" / "index.html").as_uri())
    page.locator("a[href*='02_atrous.html?framework=chainer']").first.click()
    page.wait_for_load_state()
    assert chosen(page) == {"Chainer"} and page.url.endswith("answers/02_atrous.html?framework=chainer")
    shown = page.locator(".sd-tab-content:visible pre")
    assert (
        shown.inner_text().rstrip() == (ROOT / "Question_voc/answers/02_atrous_chainer.py").read_text("utf-8").rstrip()
    )
    page.context.close()
    assert troubles == []


def switch(page):
    """Go to the same page in the other language; Playwright's own click scrolls first."""
    page.locator("a.site-language:visible").evaluate("link => link.click()")


def test_a_lesson_as_a_reader_uses_it(site, browser):
    troubles = []
    page = open_page(browser, site / f"{LESSON}.html", troubles, scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert max(map(int, re.findall(r"\d+", page.evaluate(ground))[:3])) < 60
    answer = page.locator("details.tried")
    assert answer.locator("pre:visible").count() == 0
    answer.locator("> summary", has_text="I have tried").click()
    assert answer.locator("pre:visible").count() > 1
    assert page.locator("pre").count() == page.locator("button.copybtn").count() > 5
    page.locator("#what-changed").evaluate("section => section.scrollIntoView()")
    for name, anchor, heading in ((f"ja/{LESSON}", "id4", "変わったところ"), (LESSON, "what-changed", "What changed")):
        switch(page)
        page.wait_for_url((site / f"{name}.html").as_uri() + f"#{anchor}")  # where the reader was
        assert 0 < page.get_by_role("heading", name=heading).bounding_box()["y"] < 120
    page.evaluate("window.scrollTo({ top: 0, behavior: 'instant' })")
    switch(page)
    page.wait_for_url((site / f"ja/{LESSON}.html").as_uri())
    switch(page)
    page.get_by_role("link", name="Compare the four frameworks").click()
    assert page.title() == "compared"
    page.get_by_role("link", name="To the exercise").click()
    page.locator(f"a[href='../../ja/{LESSON}.html#{urllib.parse.quote('ヒント')}']").wait_for()
    page.get_by_role("link", name="Play", exact=True).click()
    page.locator("#sigmoid output").first.wait_for()
    assert page.url == (site / "Question_semaseg/play/play.html").as_uri() + "#sigmoid"
    page.context.close()
    assert troubles == []


def test_a_page_to_play_with_belongs_to_the_site(site, browser):
    """It is as light or dark as the reader has made the site, and leads back to it, in the same language."""
    troubles = []
    page = open_page(browser, site / "ja" / "Question_semaseg" / "index.html", troubles)
    page.evaluate("localStorage.setItem('mode', 'dark')")
    page.click("a[href*='play.ja.html']")
    assert max(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))) < 60
    page.emulate_media(color_scheme="dark")  # which the site's switch overrules
    page.evaluate("localStorage.setItem('mode', 'light')")
    page.click("text=English")
    page.wait_for_url((site / "Question_semaseg/play/play.html").as_uri())
    assert min(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))) > 240
    page.click("text=日本語")
    page.wait_for_url((site / "ja/Question_semaseg/play/play.ja.html").as_uri())
    page.click("text=レッスンへ")
    page.wait_for_url((site / "ja/Question_semaseg/index.html").as_uri())
    page.context.close()
    assert troubles == []


def test_four_frameworks_stand_side_by_side(site, browser):
    """Also where their names for a thing are long."""
    page = open_page(browser, site / "ja" / "Question_semaseg" / "lesson" / "dictionary.html", [])
    table = page.locator(".pst-scrollable-table-container")
    assert table.evaluate("table => table.scrollWidth <= table.clientWidth")
    assert page.locator("td code", has_text="tf.train.Checkpoint(network=network).write(path)").count() == 1
    page.context.close()


def search(page, word):
    """Return the titles of the pages that the search of the page finds."""
    page.keyboard.press("Control+k")
    page.locator("input[type=search]:visible").fill(word)
    page.keyboard.press("Enter")
    page.locator("#search-results li").first.wait_for()
    return page.locator("#search-results li > a").all_inner_texts()


def test_search_from_the_file_system(site, browser):
    troubles = []
    page = open_page(browser, site / "index.html", troubles)
    assert "2. atrous: see farther without pooling" in search(page, "dilation")
    page.goto((site / "ja" / "index.html").as_uri())
    for word in ("受容野", "膨張畳み込み"):  # the latter made of others
        assert any(title.startswith("2. atrous") for title in search(page, word))
        page.locator(".search-summary", has_text=re.compile(r"^\d+ ページが見つかりました。$")).wait_for()
    assert search(page, "学習率")[0].endswith(" > 学習率")  # a heading before mere mentions
    page.context.close()
    assert troubles == []


def test_from_a_web_server(site, browser):
    """Below a path of its own, as on a repository host, where the search shows what it found."""
    handler = functools.partial(QuietHandler, directory=site.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page, troubles = browser.new_page(), []
        watch(page, troubles, f"http://127.0.0.1:{server.server_port}/")
        page.goto(f"http://127.0.0.1:{server.server_port}/site/")
        search(page, "dilation")
        page.locator("#search-results p.context").first.wait_for()
        # A page that comes slowly shows the reader's framework from the start.
        page.goto(f"http://127.0.0.1:{server.server_port}/site/{LESSON}.html?framework=keras&slow", wait_until="commit")
        page.locator(".sd-tab-set").first.wait_for()
        assert page.evaluate("document.readyState") == "loading" and chosen(page) == {"Keras"}
        QuietHandler.go_on.set()
        page.close()
        server.shutdown()
    assert troubles == []


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A server of files that holds back the last kilobyte of a page asked for with slow until go_on is set."""

    go_on = threading.Event()

    def log_message(self, *arguments):
        pass

    def copyfile(self, source, outputfile):
        if self.path.endswith("slow"):
            text = source.read()
            outputfile.write(text[:-1000])
            self.go_on.wait(30)
            source.seek(len(text) - 1000)
        super().copyfile(source, outputfile)


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "text, message",
    [
        ("[gone](gone.md)", "README.md: links to gone.md, which is not there: correct the link"),
        ("![gone](gone.png)", "README.md: links to gone.png, which is not there: correct the link"),
        ("see [it].\n\n[it]: gone.py", "README.md: links to gone.py, which is not there: correct the link"),
        ("[play](gone.html#iou)", "README.md: links to gone.html, which is not there: correct the link"),
        ("[play](play.html)", "play.html: links to gone.md, which is not there: correct the link"),
        ("[gone](#gone)", "README.md: WARNING: "),
        ("caf\udce9", "README.md: is not UTF-8: save it as UTF-8"),
    ],
)
def test_a_wrong_page_leaves_the_site_as_it_is(tmp_path, capsys, text, message):
    write(tmp_path, {"README.md": f"# Title\n\n{text}\n", "outputs/site/.nojekyll": "", "outputs/site/old": ""})
    write(tmp_path, {"play.html": '<a href="https://else.where/">else</a> <a href="gone.md#iou">back</a>'})
    shutil.copy(ROOT / "exercises.toml", tmp_path)
    with pytest.raises(SystemExit) as error:
        build_site.main([], tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert error.value.code == 2 and line.startswith(f"build_site.py: {message}") and "\x1b" not in line
    assert sorted(path.name for path in tmp_path.glob("outputs/*/*")) == [".nojekyll", "old"]


def test_another_folder_is_not_overwritten(tmp_path, capsys):
    write(tmp_path, {"README.md": "# Title\n", "mine/notes": ""})
    shutil.copy(ROOT / "exercises.toml", tmp_path)
    with pytest.raises(SystemExit) as error:
        build_site.main(["--out", str(tmp_path / "mine")], tmp_path)
    assert (tmp_path / "mine" / "notes").exists()
    assert error.value.code == 2 and "holds no site" in capsys.readouterr().err


def test_the_workflows_are_what_github_reads():
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    subprocess.run([*checker, *sorted(ROOT.glob(".github/workflows/*.yml"))], check=True)


def convert(text):
    return "\n".join(line for line, _ in build_site.to_tabs(build_site.mark_code(text)))


def tabs(**texts):
    parts = [f"::::::{{tab-item}} {build_site.FRAMEWORKS[key]}\n:sync: {key}\n\n{text}" for key, text in texts.items()]
    return "\n:::::::{tab-set}\n:sync-group: framework\n\n" + "\n::::::\n".join(parts) + "\n::::::\n:::::::\n"


@pytest.mark.parametrize("end", ["## Next", "**Next**", "</details>"])
def test_texts_by_framework_become_tabs_up_to_what_is_for_all(end):
    fold = "<details>\n<summary>more</summary>\n</details>"
    text = f"before\n**PyTorch**\n- one\n**Keras**\n{fold}\n```\n# no heading\n**TensorFlow**\n```\n{end}\nafter"
    keras = f"{fold}\n```\n# no heading\n**TensorFlow**\n```"
    assert convert(text) == f"before\n{tabs(pytorch='- one', keras=keras)}\n{end}\nafter"


def test_regions_of_one_answer_in_several_frameworks_become_tabs():
    regions = [f"<!-- code bin_loss_{name} train -->\n\n{name}\n\n<!-- end -->" for name in ("pytorch", "chainer")]
    assert convert("\n\n".join(regions)) == tabs(pytorch="\npytorch\n", chainer="\nchainer\n")
    for alone in ("\n\n".join(regions[:1] * 2), "\n\ntext\n\n".join(regions), "**PyTorch**\n\nalone"):
        assert convert(alone) == alone


def test_japanese_lines_are_joined_without_a_space():
    text = "特徴マップを\n  縮めます。\nU-Net と\n\n- 項目\n- 項目です。\n\n1. 一\nU-Net"
    assert build_site.JOINED.sub("", text) == "特徴マップを縮めます。U-Net と\n\n- 項目\n- 項目です。\n\n1. 一\nU-Net"
