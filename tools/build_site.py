"""Build the site in outputs/site/ from the Markdown pages of the repository.

    python tools/build_site.py                 open outputs/site/index.html, or copy the folder to any static host
    python tools/build_site.py --out FOLDER    write it there

Pages are found by PAGES, so one that is added is in the site; those in lesson/ stand in the order of their numbers.
They stay plain Markdown. What the site makes of it:

- Paragraphs **PyTorch**, **TensorFlow**, **Keras** and **Chainer**, each with what follows it, become tabs. They end at
  the next heading, line in bold, or end of a fold. So do regions of tools/fill_lessons.py that follow one another and
  differ in the framework.
- A link to a file of the repository leads to a page that shows it; the answers to an exercise share one, in tabs.
- A link to an HTML page, such as one to play with, leads to that page, which comes along with what lies beside it; the
  links of that page to others of the repository lead to those of the site.
- An exercise whose comparison lies in outputs/compare/ links to it, and it back.
- A page that has no Japanese version stands in the Japanese half of the site in English.

Sphinx makes the pages, with MyST (Markdown), sphinx-design (tabs) and the PyData theme: all had a release within the
last twelve months, their search works from the file system, and they fetch nothing from elsewhere. Of
the others, looked at in November 2026, MkDocs has had no release since August 2024, Material for MkDocs has reached its
end of life, its successor Zensical is at version 0.1, and Jupyter Book 2 needs Node.js.

Exit status 2, and nothing written, where a page links to something that is not there.
"""

import argparse
import functools
import io
import itertools
import posixpath
import re
import shutil
import sys
import tempfile
from pathlib import Path, PurePosixPath

from exercises import EXERCISES, FRAMEWORKS, REPOSITORY, name_of, read_subjects
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.application import Sphinx
from sphinx.search import SearchLanguage
from sphinx.util.docutils import docutils_namespace, patch_docutils

FOLDERS = ("Dataset", "benchmarks", "cluster", "docker")  # whose pages stand behind those of the subjects
PAGES = ("[!.]*.md", "Question_*/[!.]*.md", "Question_*/lesson/[!.]*.md", *(f"{folder}/[!.]*.md" for folder in FOLDERS))
MARK = ".nojekyll"  # tells a site from another folder, and GitHub to serve folders that begin with _
PICTURES = (".svg", ".png", ".jpg")
PARTS = Path(__file__).with_name("site")  # style, script and templates
COMPARISONS = Path("outputs/compare")
TEXTS = {
    "en": {
        "title": "Imori: semantic segmentation in four frameworks",
        "more": "More",
        "search": "Search",
        "compared": "Compare the four frameworks",
        "download": "Download {}",
        "exercise": "To the exercise",
    },
    "ja": {
        "title": "Imori: 四つのフレームワークで学ぶセマンティックセグメンテーション",
        "more": "その他",
        "search": "検索",
        "compared": "四つのフレームワークを比べる",
        "download": "{} をダウンロード",
        "exercise": "問題へ",
    },
}
FENCE = re.compile(r"\s*(`{3,}|~{3,})")
FRAMEWORK = re.compile(rf"\*\*({'|'.join(FRAMEWORKS.values())})\*\*\s*")
BREAK = re.compile(r"#{1,6} |\*\*[^*]+\*\*\s*\Z")  # a heading, or a line in bold: what ends the text for a framework
REGION = re.compile(rf"<!-- (?:code|new|diff) \S+_({'|'.join(FRAMEWORKS)})\b.*-->\s*")
COMMENT = re.compile(r"\s*<!--.*-->\s*")
WIDE = "[\u3001-\u30ff\u4e00-\u9fff\uff01-\uff5e]"  # Japanese letters, between which the end of a line is no space
JOINED = re.compile(rf"(?<={WIDE})\n *(?={WIDE})|(?<=[、。」）])\n *(?=[A-Za-z`])")
LINK = re.compile(
    r"(?P<code>(`+)(?:(?!\n\n).)+?(?<!`)\2(?!`))"  # in which nothing is a link
    r"|(?P<alt>!\[[^\]]*\]\()(?P<picture>[^()\s]+)(?=\))"
    r"|(?<=\]\()(?P<target>[^()\s]+)(?=\))"
    r"|(?<=\]: )(?P<listed>[^\s:]+)$",  # in a list of links below a text
    re.DOTALL | re.MULTILINE,
)
COLOURED = {}  # {(code, language): HTML}
LONG_CODE = re.compile(r'(?<=<span class="pre">)[^<]{21,}(?=</span>)')
JAPANESE = "[々ぁ-ゖァ-ヺー一-鿿]"
WORD = rf"(?:(?!{JAPANESE})\w)+|(?=({JAPANESE}{{2}}))"  # what the search finds: any two Japanese letters in a row count


class WrongPage(Exception):
    """A page cannot be shown as it is; the message is one line for each fault."""


def find_pages(repository):
    """Return {path from the repository's root: text in the language} of all pages, for each language.

    Both languages have the paths of the English texts; one that has no Japanese text has the English one in both.
    """
    paths = [path for pattern in PAGES for path in sorted(repository.glob(pattern)) if ".ja" not in path.suffixes]
    english = {PurePosixPath(path.relative_to(repository).as_posix()): path for path in paths}
    japanese = {page: path.with_suffix(".ja.md") for page, path in english.items()}
    return {"en": english, "ja": {page: path if path.exists() else english[page] for page, path in japanese.items()}}


def mark_code(text):
    """Return (line, whether it belongs to a block of code) for the lines of a text."""
    lines, fence = [], None
    for line in text.splitlines():
        match = FENCE.match(line)
        lines.append((line, bool(fence or match)))
        if match and not fence:
            fence = match[1]
        elif match and match[1].startswith(fence) and not line.strip(" `~"):
            fence = None
    return lines


def to_tabs(lines):
    """Return the lines with what belongs to one framework in tabs."""
    result, place = [], 0
    while place < len(lines):
        tabs, end = find_texts(lines, place)
        if not tabs:
            tabs, end = find_regions(lines, place)
        if len(tabs) > 1:
            result += show_tabs(tabs)
        else:
            end = place + 1
            result.append(lines[place])
        place = end
    return result


def show_tabs(tabs):
    """Return the lines that make tabs of (framework, lines)."""
    result = [("", False), (":::::::{tab-set}", False), (":sync-group: framework", False), ("", False)]
    for framework, content in tabs:
        start = (f"::::::{{tab-item}} {FRAMEWORKS[framework]}", f":sync: {framework}", "")
        result += [*((line, False) for line in start), *content, ("::::::", False)]
    return [*result, (":::::::", False), ("", False)]


def find_texts(lines, place):
    """Return the texts under names of frameworks that begin at a line, as (framework, lines), and where they end."""
    tabs, folds = [], 0
    while place < len(lines):
        line, is_code = lines[place]
        match = None if is_code else FRAMEWORK.fullmatch(line)
        folds += 0 if is_code else line.count("<details") - line.count("</details>")
        if match:
            tabs.append((next(key for key, name in FRAMEWORKS.items() if name == match[1]), []))
        elif not tabs or folds < 0 or not is_code and BREAK.match(line):
            break
        else:
            tabs[-1][1].append(lines[place])
        place += 1
    return tabs, place


def find_regions(lines, place):
    """Return the regions from a line on that differ in the framework, as (framework, lines), and where they end."""
    tabs, end = [], place
    while place < len(lines):
        line, is_code = lines[place]
        match = None if is_code else REGION.fullmatch(line)
        if not match and (line or not tabs):
            break
        place += 1
        if match:
            if match[1] in dict(tabs):
                break
            start = place
            while lines[place] != ("<!-- end -->", False):
                place += 1
            tabs.append((match[1], lines[start:place]))
            end = place = place + 1
    return tabs, end


def to_docname(page):
    """Return Sphinx's name for a page: its path without the suffix, README being index."""
    return str(page.parent / ("index" if page.stem == "README" else page.stem))


class Half:
    """The site in one language: Markdown for Sphinx in a folder, and other files that belong into the site."""

    def __init__(self, repository, pages, language, folder):
        self.repository, self.pages, self.language, self.folder = repository, pages, language, folder
        self.texts = TEXTS[language]
        self.files = {}  # {path in the site: file}
        self.sources = {}  # {Sphinx's name for a page that shows files of the repository: their paths}
        self.faults = []
        for page in pages[language]:
            self.write_page(page)
        if self.faults:
            raise WrongPage("\n".join(self.faults))
        for docname, paths in self.sources.items():
            self.write_sources(docname, paths)

    def write(self, place, text):
        """Write a file, and return its path."""
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def write_page(self, page):
        """Write a page of the repository."""
        path, parts = self.pages[self.language][page], []
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            return self.fault(page, "is not UTF-8: save it as UTF-8")
        lines = to_tabs(mark_code(text))
        for is_code, block in itertools.groupby(lines, key=lambda line: line[1]):
            kept = [line for line, _ in block if is_code or not COMMENT.fullmatch(line)]
            if not is_code:
                text = LINK.sub(lambda match: self.to_target(page, match), "\n".join(kept))
                kept = [JOINED.sub("", text)]
            parts += kept
        compared = self.repository / COMPARISONS / page.stem.partition("_")[2] / "index.html"
        if page.parent.name == "lesson" and compared.exists():
            place = f"compare/{compared.parent.name}.html"
            link = f'<p><a href="../{to_docname(page)}.html">{self.texts["exercise"]}</a></p>'
            self.files[place] = self.write(place, compared.read_text("utf-8").replace("<body>", f"<body>\n{link}", 1))
            parts[0] = parts[0].replace(
                "\n", f"\n\n[{self.texts['compared']}](site:{self.find_root(page)}{place})\n", 1
            )
        head = ["---", "lang: en", "---"] if self.language != "en" and path == self.pages["en"][page] else []
        self.write(f"{to_docname(page)}.md", "\n".join([*head, *parts, *self.list_below(page)]))

    def list_below(self, page):
        """Return the directive that names the pages below a README in the navigation."""
        if page.stem != "README":
            return []
        below = [other for other in self.pages["en"] if other.parent in (page.parent, page.parent / "lesson")]
        text = self.pages["en"][page].read_text(encoding="utf-8")  # which names those without a number in their order
        below.sort(key=lambda other: (0, other.name) if other.name[0].isdigit() else (1, text.find(other.name)))
        below = [f"/{to_docname(other)}" for other in below if other != page]
        if page.parent == PurePosixPath():
            subjects = {subject.folder: subject for subject in read_subjects(self.repository / EXERCISES.name)}
            titles = {name: getattr(subject, f"title_{self.language}") for name, subject in subjects.items()}
            order = [*subjects, *FOLDERS]
            folders = sorted({other.parts[0] for other in self.pages["en"] if len(other.parts) > 1})
            folders.sort(key=lambda name: order.index(name) if name in order else len(order))
            short = {name: re.split("[,：]", title)[0] for name, title in titles.items()}  # up to its first comma
            folders = [f"{short[name]} <{name}/index>" if name in short else f"{name}/index" for name in folders]
            below = [*folders, *below]
        return ["", "```{toctree}", ":hidden:", "", *below, "```", ""] if below else []

    def find_root(self, page):
        """Return the way from the folder of a page to that of the front page."""
        return "../" * (len(page.parts) - 1)

    def to_target(self, page, match):
        """Return where a link or a picture of a page leads in the site."""
        if match["code"]:
            return match[0]
        target = match["picture"] or match["target"] or match["listed"]
        link, _, fragment = target.partition("#")
        if not link or re.match("[a-z]+:", link):
            return match[0]
        file = PurePosixPath(posixpath.normpath(page.parent / link))
        if (self.repository / file).is_dir():
            file /= "README.md"
        path, folder = self.repository / file, posixpath.dirname(link)
        fragment = fragment and f"#{fragment}"
        if not path.is_file():
            self.fault(page, f"links to {link}, which is not there: correct the link")
            return match[0]
        if match["picture"]:
            place = self.folder / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            return match[0]
        original = file.with_name(file.name.replace(".ja.md", ".md"))
        if original in self.pages["en"]:
            name = to_docname(original)
            if self.pages[self.language][original] == path:
                return f"{self.find_root(page)}{name}.md{fragment}"
            other = f"{self.find_root(page)}{'ja/' if self.language == 'en' else '../'}{name}.html"
            return f"part:{other}{fragment}" if fragment else f"site:{other}"
        if file.suffix in PICTURES:
            self.files[str(file)] = path
            return f"site:{link}"
        if file.suffix == ".html":
            if str(file) not in self.files:
                self.carry(file.parent)
            return f"part:{target}" if fragment else f"site:{link}"
        name, framework = find_answer(file)
        files = [file.with_name(f"{name}_{key}.py") for key in FRAMEWORKS] if framework else [file]
        self.sources[str(file.with_name(name))] = [file for file in files if (self.repository / file).exists()]
        return f"tab:{posixpath.join(folder, name)}.html#{framework}" if framework else f"site:{link}.html"

    def carry(self, folder):
        """Let the files in a folder come along, with the links of HTML pages leading to pages of the site."""
        for path in filter(Path.is_file, (self.repository / folder).iterdir()):
            place = folder / path.name
            self.files[str(place)] = path
            if path.suffix == ".html":
                to_page = functools.partial(self.to_page, place)
                text = re.sub(r'(?<=<a href=")[^":#]+(?=["#])', to_page, path.read_text("utf-8"))
                self.files[str(place)] = self.write(place, text)

    def to_page(self, place, match):
        """Return where a link of an HTML page to a file of the repository leads in the site."""
        file = PurePosixPath(posixpath.normpath(place.parent / match[0]))
        page = file.with_name(file.name.replace(".ja.md", ".md"))
        if page not in self.pages["en"] and not (self.repository / file).is_file():
            self.faults.append(f"{place}: links to {match[0]}, which is not there: correct the link")
        name = f"{to_docname(page)}.html" if page in self.pages["en"] else str(file)
        language = "ja" if ".ja" in file.suffixes else "en"
        half = "" if language == self.language else "ja/" if language == "ja" else "../"
        return f"{self.find_root(place)}{half}{name}"

    def fault(self, page, message):
        """Remember that something is wrong with a page."""
        self.faults.append(f"{self.relate(self.pages[self.language][page])}: {message}")

    def to_faults(self, warnings):
        """Return what Sphinx warns of, with names of the repository's files, but no lines, which are not theirs."""
        names = {to_docname(page): path for page, path in self.pages[self.language].items()}
        plain = re.sub(r"\x1b\[[\d;]*m", "", warnings).strip()
        return re.sub(
            rf"^{re.escape(str(self.folder))}[\\/](\S+)\.md(:\d+)?",
            lambda match: self.relate(names[match[1]]) if match[1] in names else match[1],
            plain,
            flags=re.MULTILINE,
        )

    def relate(self, path):
        """Return the path of a page's text from the repository's root."""
        return path.relative_to(self.repository).as_posix()

    def write_sources(self, docname, paths):
        """Write the page that shows files of the repository: a single one, or the answers to an exercise in tabs."""
        page, tabs = PurePosixPath(docname), []
        lines = ["---", "orphan: true", "nosearch: true", "html_theme.sidebar_secondary.remove: true", "---"]
        lines += [f"# {page.name}", ""]
        for path in paths:
            self.files[str(path)] = self.repository / path
            text = self.files[str(path)].read_text("utf-8").rstrip("\n")
            fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
            link = f'<p><a href="{path.name}" download>{self.texts["download"].format(path.name)}</a></p>'
            shown = [link, "", f"{fence}{find_lexer(path)}", *text.split("\n"), fence, ""]
            tabs.append((find_answer(path)[1], [(line, True) for line in shown]))
        if len(tabs) > 1:
            lesson, subject = page.parent.parent / "lesson" / f"{page.name}.md", page.parent.parent / "README.md"
            other = lesson if lesson in self.pages["en"] else subject
            lines += [f"[{self.texts['exercise']}](/{to_docname(other)}.md)"]
            lines += [line for line, _ in show_tabs(tabs)]
        else:
            lines += [line for line, _ in tabs[0][1]]
        self.write(f"{docname}.md", "\n".join(lines))


def find_answer(path):
    """Return the name of the page that shows a file, and the framework whose answer the file is, if it is one."""
    try:
        framework = name_of(path.stem)[1]
    except ValueError:
        return path.name, None
    return path.stem.removesuffix(f"_{framework}"), framework


def find_lexer(path):
    """Return the name under which Pygments knows what is in a file."""
    try:
        return get_lexer_for_filename(path.name).aliases[0]
    except ClassNotFound:
        return "text"


class Japanese(SearchLanguage):
    """How Japanese is split for the search, here and in the browser alike: Sphinx's own way finds no compounds."""

    lang = "ja"
    language_name = "Japanese"
    js_splitter_code = "var splitQuery = (query) => [...query.matchAll(/%s/gu)].map((word) => word[1] ?? word[0]);"
    js_splitter_code %= WORD.replace(r"\w", r"[\p{L}\p{N}_]")

    def split(self, text):
        return [match[1] or match[0] for match in re.finditer(WORD, text)]

    def word_filter(self, word):
        return len(word) > 1


def build(half, language, site):
    """Let Sphinx make the pages of a half in a folder."""
    warnings = io.StringIO()
    settings = {
        "project": "Imori",
        "html_title": half.texts["title"],
        "language": language,
        "root_doc": "index",
        "extensions": ["myst_parser", "sphinx_design", "sphinx_copybutton"],
        "myst_enable_extensions": ["colon_fence"],
        "myst_heading_anchors": 4,
        "myst_url_schemes": {
            **dict.fromkeys(("http", "https", "mailto")),
            "site": "{{path}}",
            "part": "{{path}}#{{fragment}}",
            "tab": "{{path}}?framework={{fragment}}",  # which tab sphinx-design shows
        },
        "suppress_warnings": ["misc.highlighting_failure"],
        "highlight_language": "none",
        "templates_path": [str(PARTS / "templates")],
        "html_theme": "pydata_sphinx_theme",
        "html_theme_options": {
            "logo": {"text": "Imori", "image_light": "_static/newt.svg", "image_dark": "_static/newt.svg"},
            "navbar_align": "left",
            "navbar_end": ["theme-switcher"],
            "navbar_persistent": ["search-button", "language"],
            "header_links_before_dropdown": 4,
            "header_dropdown_text": half.texts["more"],
            "search_bar_text": half.texts["search"],
            "secondary_sidebar_items": ["page-toc"],
            "footer_start": [],
            "footer_end": [],
            "show_toc_level": 2,
        },
        "html_sidebars": {"**": ["sidebar-nav-bs"]},
        "html_static_path": [str(PARTS / "static")],
        "html_css_files": ["site.css"],
        "html_js_files": ["site.js"],
        "html_favicon": str(PARTS / "static" / "newt.svg"),
        "smartquotes": False,
        "html_copy_source": False,
        "html_use_index": False,
        "html_context": {"half": language, "default_mode": "auto"},
    }
    with tempfile.TemporaryDirectory() as trees, patch_docutils(), docutils_namespace():
        app = Sphinx(half.folder, None, site, trees, "html", settings, status=None, warning=warnings)
        app.connect("html-page-context", finish_page)
        app.add_search_language(Japanese)
        app.builder.highlighter.highlight_block = functools.partial(
            colour_once, app.builder.highlighter.highlight_block
        )
        app.build()
    if warnings.getvalue():
        raise WrongPage(half.to_faults(warnings.getvalue()))
    for place, file in half.files.items():
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, site / place)


def colour_once(colour, code, language, **others):
    """Return the HTML of code, which the second half of the site has from the first: which saves a quarter."""
    if (code, language) not in COLOURED:
        COLOURED[code, language] = colour(code, language, **others)
    return COLOURED[code, language]


def finish_page(app, docname, template, context, doctree):
    """Say of a page in the half of another language which language it is in, and let long names in the text break."""
    context["language"] = (context.get("meta") or {}).get("lang", context["language"])
    broken = LONG_CODE.sub(lambda match: re.sub(r"(?<=[._(=/])(?=[\w&])", "<wbr>", match[0]), context.get("body", ""))
    context["body"] = broken


def stop(message):
    """End with a line for each fault, and status 2."""
    for line in message.splitlines():
        print(f"build_site.py: {line}", file=sys.stderr)
    raise SystemExit(2)


def main(arguments=None, repository=REPOSITORY):
    """Build the site as the options say; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--out", type=Path, default=repository / "outputs" / "site", metavar="FOLDER")
    out = parser.parse_args(arguments).out
    if out.exists() and not (out / MARK).exists():
        stop(f"--out {out}: is there and holds no site: name a folder that is new, or an earlier site")
    out.parent.mkdir(parents=True, exist_ok=True)
    pages = find_pages(repository)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        site = Path(folder, "site")
        try:
            for language in TEXTS:
                half = Half(repository, pages, language, Path(folder, language))
                build(half, language, site if language == "en" else site / language)
        except (WrongPage, ValueError) as error:  # the latter, in a line as well, where exercises.toml is malformed
            stop(str(error))
        (site / MARK).touch()
        if out.exists():
            shutil.rmtree(out)
        site.rename(out)
    print(out / "index.html")


if __name__ == "__main__":
    main()
