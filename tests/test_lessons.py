"""The lessons and READMEs keep their word: links lead somewhere, commands and snippets run, numbers are of this code.

English and Japanese hold together: the same headings, pictures, links, code and tables.
"""

import ast
import functools
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import fill_lessons
import numpy as np
import pytest
from conftest import ROOT, SCRIPTS, find_options, run_python, write_voc
from exercises import answer_path, load_answer, read_exercises, read_subjects
from markdown_it import MarkdownIt

PAIRS = [(folder / "README.md", folder / "README.ja.md") for folder in (ROOT, *sorted(ROOT.glob("Question_*")))]
# Each exercise has a page of its own, and what concerns several has one too.
EXERCISES = read_exercises()
LESSON_PAGES = {each.name: answer_path(each, "pytorch").parents[1] / "lesson" / f"{each.stem}.md" for each in EXERCISES}
ENGLISH_PAGES = [path for path in sorted(ROOT.glob("Question_*/lesson/[!.]*.md")) if not path.name.endswith(".ja.md")]
PAIRS += [(path, path.with_suffix(".ja.md")) for path in ENGLISH_PAGES]


def list_files():
    """Return the paths of the repository's files, those that are not yet committed among them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).exists()]


FILES = list_files()
PAGES = [path for path in FILES if path.suffix == ".md"]
by_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
by_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].relative_to(ROOT).as_posix())


class Page(HTMLParser):
    """What a Markdown file holds, the HTML in it too: headings, anchors, links, pictures, blocks of code, tables."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.headings = []  # (level, text, spans of code)
        self.slugs = []  # of each heading
        self.anchors = set()  # the slugs, and what HTML names
        self.links, self.pictures, self.spans = [], [], []
        self.blocks = []  # (language, code)
        self.tables = []  # rows of cells
        self.text = []  # outside of code
        tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text("utf-8"))
        for before, token in zip([None, *tokens], tokens, strict=False):
            if token.type in ("fence", "code_block"):
                self.blocks.append((token.info.strip(), token.content))
            elif token.type == "table_open":
                self.tables.append([])
            elif token.type == "tr_open":
                self.tables[-1].append([])
            elif token.type == "html_block":
                self.feed(token.content)
            elif token.type == "inline":
                self.read_inline(before, token.children)

    def read_inline(self, before, parts):
        """Take in what stands inside a paragraph, a heading or the cell of a table."""
        text = "".join(part.content for part in parts if part.type in ("text", "code_inline"))
        spans = [part.content for part in parts if part.type == "code_inline"]
        self.spans += spans
        self.text += [part.content for part in parts if part.type == "text"]
        self.links += [part.attrs["href"] for part in parts if part.type == "link_open"]
        self.pictures += [part.attrs["src"] for part in parts if part.type == "image"]
        for part in parts:
            if part.type == "html_inline":
                self.feed(part.content)
        if before.type == "heading_open":
            self.headings.append((before.markup.count("#"), text, spans))
            slug = find_slug(text)
            earlier = [heading for _, heading, _ in self.headings[:-1] if find_slug(heading) == slug]
            self.slugs.append(f"{slug}-{len(earlier)}" if earlier else slug)
            self.anchors.add(self.slugs[-1])
        elif before.type in ("th_open", "td_open"):
            self.tables[-1][-1].append(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if name in attrs}
        self.links += [attrs["href"]] if "href" in attrs else []
        self.pictures += [attrs[name].split()[0] for name in ("src", "srcset") if name in attrs]


read_page = functools.cache(Page)


def find_slug(heading):
    """Return the anchor that GitHub gives a heading: lower case, letters, marks, digits, _ and -, and - for a blank."""
    kept = ("L", "M", "Nd", "Pc")  # of Unicode's categories
    letters = (c for c in heading.strip().lower() if c in " -" or unicodedata.category(c).startswith(kept))
    return "".join(letters).replace(" ", "-")


def test_there_are_pages():
    assert {path for pair in PAIRS for path in pair} <= set(PAGES) and len(PAIRS) >= 2
    assert {ROOT / "CONTRIBUTING.md", ROOT / "Dataset/README.md", ROOT / "benchmarks/README.md"} <= set(PAGES)
    assert {path for path in PAGES if path.parent.name == "lesson"} <= {path for pair in PAIRS for path in pair}
    assert set(LESSON_PAGES.values()) <= set(PAGES)


# Links


def find_target(page, target):
    """Return the path and the fragment that a relative link leads to."""
    parts = urlsplit(target)
    path = Path(os.path.normpath(page.path.parent / unquote(parts.path))) if parts.path else page.path
    return path, unquote(parts.fragment)


def find_broken_links(page, files):
    """Return a line for each link or picture of a page that leads to nothing among the files."""
    known = {str(path) for file in files for path in (file, *file.parents)}  # Windows takes Folder for folder
    broken = [f"{text!r} looks like a link and is none" for text in page.text if re.search(r"\][\[(]", text)]
    for target in page.links + page.pictures:
        parts = urlsplit(target)
        path, fragment = find_target(page, target)
        if parts.scheme or parts.netloc:
            if parts.scheme != "https" or not re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.netloc, re.ASCII):
                broken.append(f"{target}: an external link begins with https:// and a host")
        elif str(path) not in known:
            broken.append(f"{target}: there is no such file in the repository")
        elif fragment and path.suffix != ".md":
            broken.append(f"{target}: only headings keep their place; do not link to a line")
        elif fragment and fragment not in read_page(path).anchors:
            broken.append(f"{target}: {path.name} has no such heading; it has {', '.join(read_page(path).slugs)}")
    return broken


@by_page
def test_every_link_leads_somewhere(path):
    assert find_broken_links(read_page(path), FILES) == []


@pytest.mark.parametrize(
    ("heading", "slug"),
    [
        ("7. nearest：少ない計算で遠くを見る", "7-nearest少ない計算で遠くを見る"),
        ("1. bin_dataset: read the masks", "1-bin_dataset-read-the-masks"),
        ("What’s new? (C++ & D)", "whats-new-c--d"),
        ("データ拡張・IoU、ガイド", "データ拡張iouガイド"),
    ],
)
def test_slugs_are_those_of_github(heading, slug):
    assert find_slug(heading) == slug


@pytest.mark.parametrize(
    "text",
    [
        "[a](there.md)",
        "[a](other.md#そこ)",
        "[a][b]\n\n[b]: other.md#there-1",
        "[a](#here-is-code)",
        "![a](picture.png)",
        "[a](folder)",
        "[a](https://arxiv.org/abs/1505.04597#top)",
        '<img src="picture.png"> <a name="x"></a>[a](#x)',
        '<img alt="" src="picture.png">',
        '<picture>\n<source srcset="picture.png 2x">\n</picture>',
        "`[a](nowhere)` and x[0] (y)",
    ],
)
def test_a_broken_link_is_found(tmp_path, text):
    """Each text passes, and fails when what it names is not there or named otherwise."""
    files = [tmp_path / name for name in ("page.md", "there.md", "other.md", "picture.png", "folder/file.py")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("# そこ\n\n## There\n\n## There\n", "utf-8")

    def count_broken(text):
        files[0].write_text(f"# Here is `code`\n\n{text}\n", "utf-8")
        read_page.cache_clear()
        return len(find_broken_links(read_page(files[0]), files))

    assert count_broken(text) == 0
    changes = {
        "there": "their",
        "そこ": "ここ",
        "code": "node",
        "folder": "Folder",
        "[b]:": "[c]:",
        "#x": "#y",
        "`": "",
    }
    changes |= {'src="picture': 'src="figure', 'set="picture': 'set="figure', "(picture": "(figure"}
    changes |= {"https:": "http:", "arxiv.org": "arxiv", "(folder": "(folder/file.py#L1", "(there": "(../there"}
    changed = [text.replace(old, new) for old, new in changes.items() if old in text]
    assert changed and [count_broken(text) for text in changed] == [1] * len(changed)


# English and Japanese


def outline(page):
    """Return level, number, exercise and code of each heading: what is the same in every language."""
    lines = []
    for level, text, spans in page.headings:
        match = re.match(r"(\d+)\.\s*([a-z_]+)?", unicodedata.normalize("NFKC", text), re.ASCII)
        lines.append((level, *(match.groups() if match else ()), *sorted(spans)))
    return lines


def list_pictures(page):
    return [target.replace(".ja.", ".") for target in page.pictures]


def list_links(page):
    """Return the targets in any order, those in Japanese as those in English, a heading as its number in its file."""
    targets = []
    for target in page.links:
        path, fragment = find_target(page, target)
        if not urlsplit(target).scheme:
            slugs = read_page(path).slugs if fragment and path.suffix == ".md" else []
            place = f"#{slugs.index(fragment)}" if fragment in slugs else fragment
            target = re.sub(r"\.ja\.(md|html)$", r".\1", os.path.relpath(path, page.path.parent)) + place
        targets.append(target)
    return sorted(targets)


def list_code(page):
    """Return each block of code without its comments, which may be in either language."""
    return [(language, strip_comments(code)) for language, code in page.blocks]


def strip_comments(code):
    return re.sub(r"(^|\s+)#.*$", "", code, flags=re.MULTILINE).split("\n")


def list_numbers(page):
    """Return the numbers in each row of each table, cell by cell."""
    rows = [(f"table {i}, row {j}", row) for i, table in enumerate(page.tables, 1) for j, row in enumerate(table, 1)]
    return [(where, [sorted(find_numbers(cell)) for cell in row]) for where, row in rows]


def find_numbers(text):
    return re.findall(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", unicodedata.normalize("NFKC", text), re.ASCII)


ASPECTS = {"headings": outline, "pictures": list_pictures, "links": list_links, "code": list_code}
ASPECTS |= {"tables": list_numbers}


@by_pair
@pytest.mark.parametrize("aspect", ASPECTS)
def test_english_and_japanese_hold_together(pair, aspect):
    english, japanese = (ASPECTS[aspect](read_page(path)) for path in pair)
    assert english == japanese


@by_pair
def test_a_page_shows_the_figures_of_its_language(pair):
    english, japanese = (read_page(path).pictures for path in pair)
    assert not [target for target in english if ".ja." in target]
    others = [pair[1].parent / target for target in japanese if ".ja." not in target]
    assert not [path for path in others if path.with_suffix(f".ja{path.suffix}").exists()]


ENGLISH = """# Title

## 1. nearest: `code` and 3 more

![a picture](one.png) ![another](two.svg) [here](#title) [there](README.ja.md) [paper](https://arxiv.org/abs/1)

```
make test   # all of it
```

| 1 | two |
|---|---|
| 0.5, 1e-5 and 2 | `x` |
"""
JAPANESE = """# 題

## １. nearest：`code` ほか三つ

![画像](one.png) ![もう一つ](two.ja.svg) [論文](https://arxiv.org/abs/1) [ここ](#題) [あそこ](README.md)

```
make test   # すべて
```

| 1 | 二 |
|---|---|
| 2 と０.5、1e-5 | `x` |
"""


def test_what_differs_between_the_languages_is_found(tmp_path):
    def differ(japanese):
        for name, text in (("README.md", ENGLISH), ("README.ja.md", japanese)):
            (tmp_path / name).write_text(text, "utf-8")
        read_page.cache_clear()
        english, japanese = Page(tmp_path / "README.md"), Page(tmp_path / "README.ja.md")
        return [name for name, aspect in ASPECTS.items() if aspect(english) != aspect(japanese)]

    assert differ(JAPANESE) == []
    for old, new, aspects in (
        ("## １.", "### １.", ["headings"]),
        ("## １.", "## ２.", ["headings"]),
        ("nearest", "concat", ["headings"]),
        ("`code`", "`cod`", ["headings"]),
        ("one.png", "three.png", ["pictures"]),
        ("one.png) ![もう一つ](two.ja.svg)", "two.svg) ![画像](one.png)", ["pictures"]),
        ("[あそこ](README.md)", "", ["links"]),
        ("abs/1", "abs/2", ["links"]),
        ("(#題)", "(#1-nearestcode-ほか三つ)", ["links"]),
        ("make test", "make lint", ["code"]),
        ("```\nmake", "```python\nmake", ["code"]),
        ("０.5", "０.6", ["tables"]),
        ("| 2 と", "| ", ["tables"]),
        ("| `x` |", "| `x` |\n| 1 | 2 |", ["tables"]),
        ("| 1 | 二 |\n|---|---|", "| 1 | 二 | 三 |\n|---|---|---|", ["tables"]),
    ):
        assert JAPANESE.count(old) == 1
        assert differ(JAPANESE.replace(old, new)) == aspects, new


# Marked regions and results


def test_no_marked_region_is_stale(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fill_lessons.py", "--check"])
    with pytest.raises(SystemExit) as end:
        fill_lessons.main()
    said = capsys.readouterr()
    assert (said.out, said.err, end.value.code) == ("", "", 0)


Options = SimpleNamespace  # of an answer
READMES = [ROOT / subject.folder / name for subject in read_subjects() for name in ("README.md", "README.ja.md")]
NEWTS = [path for path in READMES if path.parent.name == "Question_semaseg"]
OLDER = READMES + [path for path in PAGES if path.parent.name == "lesson"]
OLDER = [path for path in OLDER if {"Question_semaseg", "Question_digits"} & set(path.parts)]
by_readme = pytest.mark.parametrize("path", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
by_older = pytest.mark.parametrize("path", OLDER, ids=lambda path: path.relative_to(ROOT).as_posix())
by_language = pytest.mark.parametrize("path", NEWTS, ids=lambda path: path.name)
LONGEST = 600  # lines of the whole lesson at a glance


def split_sections(path):
    """Return {exercise: its section} of a lesson."""
    parts = re.split(r"^## ", path.read_text("utf-8"), flags=re.MULTILINE)
    heads = [re.match(r"(\d+)\.\s*([a-z_]+)", part) for part in parts]
    return {head[2]: part for head, part in zip(heads, parts, strict=True) if head}


def read_exercise(path, name):
    """Return what a lesson says of an exercise: its section and its page."""
    return split_sections(path)[name] + find_page(path, LESSON_PAGES[name].stem).read_text("utf-8")


def find_page(path, name):
    """Return the path of a page of a lesson, in its language."""
    return path.parent / "lesson" / f"{name}{path.name.removeprefix('README')}"


@by_readme
def test_a_lesson_is_seen_at_a_glance(path):
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST


@by_readme
def test_a_lesson_has_each_exercise_in_its_order_with_its_parameters_and_answers(path):
    sections = split_sections(path)
    exercises = [each for each in read_exercises() if answer_path(each, "pytorch").parent.parent == path.parent]
    assert list(sections) == [each.name for each in exercises]
    said = set()  # that a later exercise has as many parameters as one before it need not be said
    for exercise in exercises:
        section = sections[exercise.name]
        assert section.startswith(f"{exercise.number}. {exercise.name}")
        assert all(f"(answers/{exercise.stem}_{framework}.py)" in section for framework in fill_lessons.FRAMEWORKS)
        assert f"(lesson/{find_page(path, exercise.stem).name})" in section
        section = read_exercise(path, exercise.name)
        if exercise.trains and exercise.parameters not in said:
            assert f"{exercise.parameters:,}" in section, exercise.name
        said.add(exercise.parameters)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
@pytest.mark.parametrize("language", [".md", ".ja.md"])
def test_a_page_is_of_its_exercise_and_links_to_its_answers_and_its_neighbours(exercise, language):
    path = LESSON_PAGES[exercise.name].with_suffix(language)
    page = read_page(path)
    assert [level for level, *_ in page.headings].count(1) == 1
    title = unicodedata.normalize("NFKC", page.headings[0][1])
    assert title.startswith(f"{exercise.number}. {exercise.name}")
    ladder = [each for each in EXERCISES if each.subject == exercise.subject]
    near = [each for each in ladder if abs(each.number - exercise.number) == 1]
    wanted = {LESSON_PAGES[each.name].with_suffix(language) for each in near} | {path.parents[1] / f"README{language}"}
    wanted |= {answer_path(exercise, framework) for framework in fill_lessons.FRAMEWORKS}
    assert wanted <= {find_target(page, target)[0] for target in page.links}


@functools.cache
def read_newts(exercise, part):
    """Return the targets of the bundled newts as an exercise reads them: (N, 64, 64)."""
    answer = load_answer(answer_path(exercise, "pytorch"))
    return answer.load_newts(ROOT / "Dataset" / part, 64)[2]


@by_language
def test_what_is_typed_about_the_bundled_newts_is_so(path):
    """The shares of the classes, and how many images there are; in the tasks, the shapes of their arrays."""
    binary, classes = (read_exercise(path, name) for name in ("bin_dataset", "semaseg_dataset"))
    train, test = (read_newts("bin_dataset", part) for part in ("train", "test"))
    shares = {f"{targets.mean():.1%}"[:-1] for targets in (train, test)}
    assert {str(len(train)), str(len(test)), f"{train.mean():.3f}", *shares} <= set(find_numbers(binary))
    assert f"({len(train)}, 64, 64, 3)" in binary and f"({len(train)}, 64, 64)" in classes
    for part in ("train", "test"):
        targets = read_newts("semaseg_dataset", part)
        for share in np.bincount(targets.ravel(), minlength=3) / targets.size:
            assert f"{share:.1%}"[:-1] in find_numbers(classes)
    text = find_page(path, "metrics").read_text("utf-8")
    weights = text[text.index("benchmarks/losses.py") - 200 : text.index("benchmarks/losses.py")]
    assert f"{train.mean():.1%}"[:-1] in find_numbers(weights)
    images = len(list((ROOT / "Dataset/train/images").rglob("*.jpg")))
    shown = (ROOT / "Dataset/README.md").read_text("utf-8")
    assert images == len(train) and f"{images} images to train on and {len(test)} to test on" in shown
    stored = sum(each.stat().st_size for part in ("train", "test") for each in (ROOT / "Dataset" / part).rglob("*.*"))
    assert f"{stored / 1e6:.1f} MB" in shown


@by_language
def test_what_is_typed_about_a_network_that_has_learnt_nothing_is_so(path):
    """What it costs to answer the shares of the classes everywhere, and what all background is worth."""
    for name, tested in (("bin_loss", "bin_test"), ("semaseg_loss", "semaseg_test")):
        train, test = (read_newts(name.replace("loss", "dataset"), part).ravel() for part in ("train", "test"))
        shares, (background, *others) = (np.bincount(targets) / targets.size for targets in (train, test))
        assert f"{-(shares * np.log(shares)).sum():.3f}" in find_numbers(read_exercise(path, name))
        numbers = find_numbers(read_exercise(path, tested))
        assert {f"{background:.3f}", f"{background / (1 + len(others)):.3f}"} <= set(numbers)


@by_language
def test_the_first_losses_among_the_checkpoints_are_those_measured(path):
    measured = json.loads((ROOT / "Question_semaseg/assets/results.json").read_text("utf-8"))["answers"]
    same = {"bin_test": "bin_loss", "semaseg_test": "semaseg_loss"}  # the same network, which trains in the same way
    for exercise in dict.fromkeys(name.rpartition("_")[0] for name in measured):
        text = read_exercise(path, same.get(exercise, exercise))
        numbers = find_numbers(text[max(text.rfind("Checkpoints:"), text.rfind("確かめること：")) :])
        assert {f"{measured[f'{exercise}_{name}']['first_loss']:.3f}" for name in fill_lessons.FRAMEWORKS} <= set(
            numbers
        )


@by_language
def test_what_is_typed_about_poolings_is_so(path):
    """How far a logit sees with two and three poolings, and that the sizes are multiples of 2 to the power of them."""
    import torch

    answer = load_answer(answer_path("transposeconv", "pytorch"))
    seen = {}
    for poolings in answer.NUMBERS["poolings"][1]:
        options = Options(device="cpu", poolings=poolings)
        network = answer.build_network(np.random.default_rng(0), options).eval()
        images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0), requires_grad=True)
        logits, widths = network(images), []
        for column in range(64, 72):
            (slopes,) = torch.autograd.grad(logits[0, 0, 64, column], images, retain_graph=True)
            touched = slopes[0].abs().sum((0, 1)).nonzero().flatten()
            widths.append(int(touched[-1] - touched[0]) + 1)
        seen[poolings] = max(widths)
    nearest, transposed = (read_exercise(path, name) for name in ("nearest", "transposeconv"))
    assert f"{seen[1]} x {seen[1]}" in nearest and len(seen) == 3
    assert all(f"{seen[poolings]} x {seen[poolings]}" in transposed for poolings in (2, 3))
    assert answer.NUMBERS["size"][1].step == 2 ** max(seen) == 8  # the text says: multiples of 8


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_what_is_typed_about_the_comparison_is_so(name):
    """How many iterations it takes at most stands on the front page, twice, and on a page of the newts."""
    source = (ROOT / "tools/compare.py").read_text("utf-8")
    (most,) = re.findall(r"^MOST_ITERATIONS = (\d+)", source, re.MULTILINE)
    text = (ROOT / name).read_text("utf-8")
    section = text[text.index("make compare EXERCISE=unetlike") :]
    paragraphs = [text[: text.index("make test")], section[section.index("```") : section.index("comparison.png")]]
    lesson = find_page(ROOT / "Question_semaseg" / name, "compare").read_text("utf-8")
    paragraphs.append(lesson[lesson.index("tools/compare.py --exercise") : lesson.index("tools/double_precision.py")])
    assert all(most in find_numbers(part.replace(",", "")) for part in paragraphs)


def test_commands_set_up_chainer_as_the_requirements_say():
    (wanted,) = re.findall(r"^setuptools(.+)$", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    for path in PAGES:
        named = re.findall(r"setuptools([<>=][^\"'`\s]*)", path.read_text("utf-8"))
        assert set(named) <= {wanted}, path
    assert wanted in (ROOT / "README.md").read_text("utf-8")


# What the answers of the two older subjects had, and have no more; a newer one may have a name of these for its own.
GONE = """ON_CPU ON_GPU VERSIONS WARM_UP SIZES draw_weights find_pictures read_picture show_loss count_parameters
pick_device save_picture peak_memory milliseconds_per_iteration --train code_hash""".split()


@by_older
def test_a_lesson_names_nothing_that_is_gone(path):
    text = path.read_text("utf-8")
    assert [name for name in GONE if re.search(rf"(?<![\w-]){re.escape(name)}\b", text)] == []


NETWORKS = ("CNN without dropout", "Chebyshev of order 3, 4 x 26")  # whose time and memory are compared


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_numbers_of_graphs_in_the_text_are_those_measured(name):
    """Tables of regions are filled in; what the text around them says is typed."""
    lesson = ROOT / "Question_digits"
    text = LESSON_PAGES["grid_graph"].with_suffix(name.removeprefix("README")).read_text("utf-8")
    assets = ROOT / "Question_digits/assets"
    measured = json.loads((assets / "sparse.json").read_text("utf-8"))
    for side, ways in measured["sides"].items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {side} |"))
        for way in ways.values():
            assert f" {way['bytes'] / 1e6:,.2f} |" in row
            assert way["milliseconds"] is None or f" {way['milliseconds']:.2f} |" in row
    for exponent in (measured["exponents"][f"{way} milliseconds"] for way in ("dense", "sparse")):
        assert f"{exponent:.2f}" in text
    text = LESSON_PAGES["graph_conv"].with_suffix(name.removeprefix("README")).read_text("utf-8")
    runs = json.loads((assets / "graph_against_cnn.json").read_text("utf-8"))
    means = {
        network: {key: statistics.mean(run[key] for run in entry["runs"].values()) for key in entry["runs"]["0"]}
        for network, entry in runs.items()
    }
    start, end = (text.index(mark) for mark in ("<!-- measured graph_against_cnn -->", "assets/isotropic"))
    prose = text[text.index("<!-- end -->", start) : end]
    for mean in means.values():
        assert f"{mean['mean_digit_iou']:.3f}" in prose
    cnn, graph = (means[network] for network in NETWORKS)
    for key in ("milliseconds_per_iteration", "peak_memory_mb"):
        assert f"{cnn[key]:.0f}" in prose and f"{graph[key]:.0f}" in prose
    times = [mean["milliseconds_per_iteration"] for mean in (graph, cnn)]
    assert f"{times[0] / times[1]:.1f}" in prose
    glance = split_sections(lesson / name)["graph_conv"]
    best = [means[network]["mean_digit_iou"] for network in (*NETWORKS, "Kipf and Welling, 8 x 29")]
    assert {f"{number:.3f}" for number in best} | {f"{times[0] / times[1]:.1f}"} <= set(find_numbers(glance))


@pytest.mark.parametrize("language", [".md", ".ja.md"])
def test_what_is_typed_about_debugging_was_measured(language):
    measured = json.loads((ROOT / "Question_semaseg/assets/debugging.json").read_text("utf-8"))
    page = read_page(ROOT / f"Question_semaseg/lesson/debugging{language}")
    rows = [
        [count, *(f"{each[key]:.3f}" for key in ("loss", "newt_share", "pixel_accuracy", "miou"))]
        for count, each in measured["seen"].items()
    ]
    assert rows in [table[1:] for table in page.tables]
    numbers = set(find_numbers(" ".join(page.text)))
    assert {f"{loss:.3f}" for loss in (*measured["one_batch"].values(), measured["constant"])} <= numbers
    assert {f"{measured['rates'][rate]:.3f}" for rate in ("0.001", "0.03", "0.1", "0.3", "1.0")} <= numbers
    assert {f"{share:.1%}"[:-1] for share in measured["stripes"].values()} <= numbers
    assert f"{measured['runs']['softmax before the loss'][0]['end_loss']:.3f}" in numbers


@pytest.mark.parametrize("exercise", ["digits_cnn", "graph_conv"])
@pytest.mark.parametrize("language", [".md", ".ja.md"])
def test_the_first_losses_among_the_checkpoints_are_those_of_the_answers(exercise, language):
    measured = json.loads((ROOT / "Question_digits/assets/results.json").read_text("utf-8"))["answers"]
    losses = {f"{loss:.3f}" for loss in measured[f"{exercise}_pytorch"]["fingerprint"]["losses"]}
    text = LESSON_PAGES[exercise].with_suffix(language).read_text("utf-8")
    points = re.split(r"^- ", text[text.rindex("<!-- results") :], flags=re.MULTILINE)
    assert any(losses <= set(find_numbers(point)) for point in points[1:])


# Commands

PROGRAMS = ("make", "python", "python3", "pip", "pytest", ".venv/bin/python")
# Not ours, or in need of the network: taken on trust.
OTHERS = ("cd ", "git clone ", "sudo apt-get install ", "labelme_venv/bin/", "sbatch ")
# Of the scripts that take no minute, what makes them shorter still; the others are asked for their --help.
QUICK = {"tools/convert_weights.py": [], "tools/copies.py": [], "tools/fill_lessons.py": ["--check"]}
QUICK |= {"Dataset/draw_newts.py": ["--train", "1", "--test", "1"]}
SHORT = {"--iterations": "1", "--pretraining": "1", "--batch": "2", "--device": "cpu"}
# A user has these by the time; here a few of the bundled images stand for them, as random ones do for the digits.
STAND_INS = ("Dataset/photographs", "my_newts")
DIGITS = "Dataset/digits/digits.npz"
VOC = ("Dataset/voc", "Dataset/voc2012")  # drawn, and downloaded
FETCHED = "Dataset/deeplab/"  # weights of some 200 MB: commands with these are only checked


def find_commands(page):
    """Return [(command, whether it stands in a block)] of a page, in order."""
    commands = []
    for language, code in page.blocks:
        lines = [line for line in code.replace("\\\n", " ").split("\n") if strip_comments(line) != [""]]
        is_shell = language in ("sh", "bash", "shell", "console")
        if is_shell or (not language and any(is_command(line) for line in lines)):
            commands += [(line, True) for line in lines]
    return commands + [(span, False) for span in page.spans if is_command(span) and " " in span]


def is_command(line):
    words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
    return bool(words) and (words[0] in PROGRAMS or line.startswith(OTHERS))


def try_command(line, folder, run):
    """Run a command in a copy of the repository, or only check it; return what is wrong, None if nothing."""
    words = shlex.split(line, comments=True)
    environment = []
    while re.match(r"[A-Z_]+=", words[0]):
        environment.append(words.pop(0).split("=", 1))
    program, *arguments = words
    if " ".join(words).startswith(OTHERS):
        return None
    if program not in PROGRAMS:
        return "is no command that this test knows"
    if "python" in program:
        if arguments[:1] != ["-m"]:
            return try_script(arguments, folder, run, dict(environment))
        program, *arguments = arguments[1:]
    if program == "make":
        return check_make(arguments, folder)
    if program == "pip":
        return check_pip(arguments, folder)
    if program == "pytest":
        lacking = [word for word in arguments if not word.startswith("-") and not (folder / word).exists()]
        return f"there is no {' or '.join(lacking)}" if lacking else None
    return None if program == "venv" else f"there is no module {program}"


def check_make(arguments, folder):
    makefile = (folder / "Makefile").read_text("utf-8")
    for word in arguments:
        name = word.split("=")[0]
        if "=" in word and f"$({name})" not in makefile:
            return f"the Makefile has no variable {name}"
        if "=" not in word and not re.search(rf"^{name}:", makefile, re.MULTILINE):  # make takes a file's name too
            return f"the Makefile has no target {name}"
    if not shutil.which("make"):
        return None
    done = subprocess.run(["make", "--dry-run", *arguments], cwd=folder, capture_output=True, encoding="utf-8")
    return done.stderr.strip() if done.returncode else None


def check_pip(arguments, folder):
    """Check that pip is to install what the requirements name."""
    named = "".join((folder / name).read_text("utf-8") for name in ("requirements.txt", "requirements-dev.txt"))
    known = set(re.findall(r"^([\w-]+)[=<>]", named, re.MULTILINE))
    for before, word in zip(["", *arguments], arguments, strict=False):
        if before == "-r" and not (folder / word).exists():
            return f"there is no {word}"
        if (
            before != "-r"
            and word != "install"
            and not word.startswith("-")
            and re.split(r"[<=>\[]", word)[0] not in known
        ):
            return f"{word} is in neither requirements file"
    return None


def try_script(arguments, folder, run, environment):
    name, *arguments = arguments
    script = folder / name
    if not script.exists():
        return f"there is no {name}"
    is_answer = script.parent.name == "answers"
    if run and (is_answer or name in QUICK) and FETCHED not in " ".join(arguments):
        shorter = QUICK.get(name, [])
        for option in set(SHORT) & set(find_options(script)) if is_answer else ():
            shorter = [*shorter, option, SHORT[option]]
        done = run_script(folder, name, *arguments, *shorter, **environment)
        # What is not measured yet is no fault of the command; test_no_marked_region_is_stale tells of it.
        is_filling = name == "tools/fill_lessons.py" and done.returncode == 1 and not done.stderr
        return None if is_filling or not done.returncode else done.stderr[-500:] or done.stdout[-500:]
    if is_answer:
        known = find_options(script)
    else:
        done = run_script(folder, name, "--help")
        if done.returncode:
            return done.stderr[-500:]
        known = re.findall(r"--[\w-]+", done.stdout)
    options = [word.split("=")[0] for word in arguments if word.startswith("--")]
    return next((f"{name} has no {option}" for option in options if option not in [*known, "--help"]), None)


def run_script(folder, *arguments, **environment):
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        return run_python(*arguments, cwd=folder)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder with a few drawn streets, instead of the 250 that are drawn where there are none."""
    folder = tmp_path_factory.mktemp("街") / "streets"
    done = run_python(ROOT / "Dataset/draw_streets.py", "--train", 4, "--val", 12, "--out", folder, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder


def copy_repository(folder, drawn=None):
    """Copy the repository, with one image of each species to train on and one to test on, and drawn streets.

    By itself an answer of a later stage of Question_street trains for one iteration.
    """
    kept = re.compile(r"train/.*0001\.\w+|test/.*0010\.\w+")
    for path in FILES:
        below = path.relative_to(ROOT).as_posix()
        if not re.match("Dataset/(train|test)/", below) or kept.search(below):
            (folder / below).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / below)
    for name in STAND_INS:
        for part in ("train", "test"):
            shutil.copytree(folder / "Dataset" / part, folder / name / part)
    rng = np.random.default_rng(0)
    arrays = {"digits": (20, 28, 28), "photographs": (20, 32, 32, 3)}
    (folder / DIGITS).parent.mkdir()
    np.savez(folder / DIGITS, **{name: rng.integers(0, 256, shape, np.uint8) for name, shape in arrays.items()})
    for name in VOC:
        write_voc(folder / name)
    if drawn:
        shutil.copytree(drawn, folder / "Dataset/streets")
    for path in (folder / "Question_street/answers").glob("*_street_train_*.py"):
        text, number = re.subn(r'("iterations": \()\d+,', r"\g<1>1,", path.read_text("utf-8"))
        assert number == 1
        path.write_text(text, "utf-8")
    return folder


@by_page
def test_commands_run(path, tmp_path, drawn):
    """Those of a page one after another, as a reader would; runs take one iteration of two images."""
    commands = find_commands(read_page(path))
    in_english = not path.name.endswith(".ja.md")  # the blocks of both are the same, so it is enough to run one
    folder = copy_repository(tmp_path / "いもり", drawn) if commands else None
    wrong = {line: try_command(line, folder, run and in_english) for line, run in commands}
    assert {line: message for line, message in wrong.items() if message} == {}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("make compare EXERCISE=unet SEED=0  # text", "make compare EXERCISES=unet"),
        ("make test", "make tests"),
        ("make PYTHON=python3.11", "make PYTHONS=python3.11"),
        ("pip install torch 'setuptools>=70.1,<81' -r requirements.txt", "pip install pytorch"),
        ("python3 -m pip install -r requirements.txt", "python3 -m pip install -r requirement.txt"),
        ("python3 -m venv .venv", "python3 -m nothing"),
        (".venv/bin/python -m pytest -s tests/test_lessons.py", "pytest tests/test_lesson.py"),
        ("git clone https://example.org", "git push"),
        ("python tools/compare.py --seed 1", "python tools/compare.py --seeds=1"),
        (
            "python Question_semaseg/answers/10_unet_keras.py --size 236 --augment none",
            "python Question_semaseg/answers/10_unet_keras.py --sise 1",
        ),
        ("A=b python tools/copies.py --fix", "python tools/copys.py"),
    ],
)
def test_a_wrong_command_is_found(tmp_path, line, wrong):
    folder = copy_repository(tmp_path / "copy")
    assert try_command(line, folder, run=False) is None
    assert try_command(wrong, folder, run=False)


def test_a_command_that_fails_is_found(tmp_path):
    folder = copy_repository(tmp_path / "copy")
    assert try_command("PYTHONPATH=. .venv/bin/python tools/copies.py", folder, run=True) is None
    answer = folder / "Question_semaseg/answers/10_unet_keras.py"
    answer.write_text(answer.read_text("utf-8").replace("def stop(", "def  stop("), "utf-8")
    (folder / "CONTRIBUTING.md").write_text("<!-- wrong -->")  # the first file that the tool reads
    assert "no marker 'wrong'" in try_command("python tools/fill_lessons.py", folder, run=True)


def test_commands_are_found(tmp_path):
    page = tmp_path / "page.md"
    blocks = "```\nA=1 make \\\n    x\n\n# comment\nls\n```\n\n```\nfolder/\n```\n\n```sh\nrm x\n```\n"
    page.write_text(f"`make test`, `make`, `x`\n\n{blocks}")
    assert find_commands(Page(page)) == [("A=1 make      x", True), ("ls", True), ("rm x", True), ("make test", False)]


# Snippets


@functools.cache
def read_answers():
    return [script.read_text("utf-8").split("\n") for script in SCRIPTS]


def find_snippets(page):
    return [code for language, code in page.blocks if language == "python"]


def stands_in_an_answer(code):
    """Return whether each piece of code stands in one answer, however far indented; a constant is a piece, too."""
    pieces = [piece.strip("\n").split("\n") for piece in re.split(r"\n\n\n|\n(?=[A-Z_]+ = )", code)]
    return any(all(stands_in(piece, lines) for piece in pieces) for lines in read_answers())


def stands_in(piece, lines):
    starts = (i for i, line in enumerate(lines) if line.strip() == piece[0].strip())
    wanted = textwrap.dedent("\n".join(piece))
    return any(textwrap.dedent("\n".join(lines[i : i + len(piece)])) == wanted for i in starts)


@functools.cache
def run_without_comments(code):
    """Run code by itself and return what is wrong, None if nothing."""
    with tempfile.TemporaryDirectory() as folder:
        done = run_python("-c", f"import numpy as np\n{code}", cwd=folder)
    return done.stderr[-500:] if done.returncode else None


def run_snippet(code):
    """Run a snippet once for both languages, which differ in comments only, and return what is wrong."""
    try:
        return run_without_comments(ast.unparse(ast.parse(code)))
    except SyntaxError as error:
        return str(error)


@by_page
def test_snippets_stand_in_an_answer_or_run(path):
    snippets = [code for code in find_snippets(read_page(path)) if not stands_in_an_answer(code)]
    assert {code: message for code in snippets if (message := run_snippet(code))} == {}


def test_a_wrong_snippet_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = np.ones(3)\nassert x.sum() == 3\n```\n\n```\nno snippet\n```\n")
    (code,) = find_snippets(Page(page))
    assert not stands_in_an_answer(code) and run_snippet(code) is None
    assert "AssertionError" in run_snippet(code.replace("== 3", "== 4"))
    assert run_snippet("x = (") and run_snippet("x = 1\n# x") is None
    code = fill_lessons.find_source(answer_path("unet", "pytorch"), "Network.forward")
    assert stands_in_an_answer(code) and not stands_in_an_answer(code.replace("skips = []", "skips = list()"))
    two = f"{code}\n\n\nclass Network(nn.Module):\n"
    assert stands_in_an_answer(two) and not stands_in_an_answer(f"{two}\n\n\ndef draw_newts():\n")
    lines = code.split("\n")
    assert not stands_in_an_answer("\n".join(lines[:2] + lines[3:]))
