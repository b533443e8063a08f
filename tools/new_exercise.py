"""Make the skeleton of a new exercise: four answers that run and pass tools/copies.py, an entry in exercises.toml, and
its place in the lesson in both languages.

    python tools/new_exercise.py attention --subject semaseg --from concat \\
        --en "a skip connection that is weighted by attention" --ja "注意機構で重みを付けたスキップ接続"

The exercise is the last of its subject. Its answers are those of the exercise that it starts from, but for their
docstrings: they name Network new (build_network where there is no Network, and main where there is no network), whose
first line is now what --en says. The exercise gets a page in lesson/, which the page before it links to, and a section
in README.md, both with the headings and links that all have. What is left to do is printed.
"""

import argparse
import ast
import json
import re
import sys
import textwrap

from exercises import (
    EXERCISES,
    FRAMEWORKS,
    NAME,
    REPOSITORY,
    answer_path,
    find_exercise,
    find_subject,
    read_exercises,
)
from start import SUBJECTS

WIDTH = 120  # columns of a line
PAGE = """# {number}. {name}{colon}{builds}

{before} · {glance}

{begin}{why_is}{answers}{colon_in_bold}
{links}

## {idea}

## {task}

1. {start}

## {hints}

## {traps}

## {changed}

<details class="tried">
<summary>{tried}</summary>

{changes}

</details>

## {expected}

## {next}

## {five}
"""
SECTION = """## {number}. {name}{colon}{builds}

**{why}**

**{task}**

<!-- section lesson/{page} {task} -->
<!-- end -->

**{the_page}{colon_in_bold}** [lesson/{page}](lesson/{page}){full_stop}**{answers}{colon_in_bold}**
{links}

"""
ENGLISH = {
    "suffix": ".md",
    "colon": ": ",
    "colon_in_bold": ":",
    "full_stop": ". ",
    "glance": "[the lesson at a glance](../README.md)",
    "forward": "next: ",
    "begin": "Begin with `make start EXERCISE={} FRAMEWORK=pytorch`, or another framework; "
    "`make check` tells what holds.\n",
    "why_is": "Why you build it is in [the lesson](../README.md). ",
    "answers": "Answers",
    "idea": "The idea",
    "task": "Your task",
    "start": "Start from `{}`.",
    "hints": "Hints",
    "traps": "Traps",
    "changed": "What changed",
    "tried": "I have tried: show the answer",
    "expected": "Expected result",
    "next": "Try next",
    "five": "In five lines",
    "why": "Why.",
    "the_page": "The page",
}
JAPANESE = {
    "suffix": ".ja.md",
    "colon": "：",
    "colon_in_bold": "：",
    "full_stop": "。",
    "glance": "[レッスンの一覧](../README.ja.md)",
    "forward": "次：",
    "begin": "`make start EXERCISE={} FRAMEWORK=pytorch`（ほかのフレームワークでも）で始め、"
    "`make check` で確かめます。\n",
    "why_is": "ねらいは[レッスンの一覧](../README.ja.md)にあります。",
    "answers": "答え",
    "idea": "考え方",
    "task": "課題",
    "start": "`{}` から始めます。",
    "hints": "ヒント",
    "traps": "つまずきやすいところ",
    "changed": "変わったところ",
    "tried": "自分で試した。答えを見る",
    "expected": "期待される結果",
    "next": "次に試すこと",
    "five": "五行でまとめると",
    "why": "ねらい。",
    "the_page": "この問題のページ",
}


def stop(message):
    """End with one line and status 2; nothing has been written."""
    print(f"new_exercise.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_options():
    """Return the options of the command line, subject and base as exercises.toml has them; stop at a wrong one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("name", help="of the exercise, in lower case, such as grid_graph")
    parser.add_argument("--subject", required=True, type=find_subject, help="such as semaseg")
    parser.add_argument("--from", required=True, dest="base", type=find_exercise, help="the exercise it starts from")
    parser.add_argument("--en", required=True, help="what the learner builds, in English, for the table of exercises")
    parser.add_argument("--ja", required=True, help="the same in Japanese")
    options = parser.parse_args()
    if not NAME.fullmatch(options.name):
        stop(f"{options.name}: write the name in lower case, such as grid_graph")
    if options.name in [exercise.name for exercise in read_exercises()]:
        stop(f"{options.name}: there is such an exercise: give another name")
    if options.base.subject != options.subject.name:
        stop(f"--from {options.base.name}: is of another subject: name an exercise of {options.subject.name}")
    for option in ("en", "ja"):
        text = vars(options)[option].strip().rstrip(".。")
        if not text or not text.isprintable() or '"' in text or "\\" in text or len(text) > 100:
            stop(f"--{option} {text!r}: give one line of 1 to 100 characters, without double quotes or backslashes")
        vars(options)[option] = text
    return options


def make_answer(text, exercise, framework, number, options):
    """Return the text of an answer made from the base's; exercise is the base, number that of the new one."""
    body = ast.parse(text).body
    pieces = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    name = next(name for name in ("Network", "build_network", "main") if name in pieces)
    lines = text.splitlines()
    claims = f"New here: {name}. All else is as in {exercise.stem}_{framework}.py."
    what = f'"""Exercise {number}, {options.name}, in {FRAMEWORKS[framework]}: {options.en}.'
    docstring = [*textwrap.wrap(what, WIDTH), "", *textwrap.wrap(claims, WIDTH), '"""']
    # From below, so that the line numbers above stay true.
    first_line = f'"""{options.en[0].upper()}{options.en[1:]}'
    piece, indent = pieces[name], " " * pieces[name].body[0].col_offset
    old = piece.body[0] if ast.get_docstring(piece) else None
    if old is None:
        lines.insert(piece.body[0].lineno - 1, f'{indent}{first_line}."""')
    else:
        first, *more = lines[old.lineno - 1 : old.end_lineno]
        while more and more[0].strip() not in ("", '"""'):  # the rest of the first paragraph
            more.pop(0)
        shapes = re.search(r": images to [^.]*|$", first)[0]  # as in: images to logits (batch, 3, height, width)
        closing = '"""' * (not more)
        candidates = (f"{indent}{first_line}{end}.{closing}" for end in (shapes, ""))
        new_line = next(line for line in candidates if len(line) <= WIDTH)
        lines[old.lineno - 1 : old.end_lineno] = [new_line, *more]
    lines[: body[0].end_lineno] = docstring
    return "\n".join(lines) + "\n"


def add_to_lesson(answers, number, options):
    """Return {path: text} of the new pages of the lesson, and of the files that lead to them.

    answers is {path: text} of the new answers.
    """
    folder = REPOSITORY / options.subject.folder
    (last,) = (each for each in read_exercises() if (each.subject, each.number) == (options.subject.name, number - 1))
    changes = []
    for framework, text in zip(FRAMEWORKS, answers.values(), strict=True):
        piece = re.search(r"New here: (\w+)", text)[1]
        marker = f"diff {options.base.name}_{framework} {options.name}_{framework} {piece}"
        changes.append(f"**{FRAMEWORKS[framework]}**\n\n<!-- {marker} -->\n<!-- end -->")
    files = {}
    for words, builds in ((ENGLISH, options.en), (JAPANESE, options.ja)):
        page, before = (f"{stem}{words['suffix']}" for stem in (f"{number:02}_{options.name}", last.stem))
        words = words | {"number": number, "name": options.name, "builds": builds, "page": page}
        words |= {"start": words["start"].format(options.base.name), "changes": "\n\n".join(changes)}
        words |= {"before": f"[{last.number}. {last.name}]({before})"}
        words |= {"begin": words["begin"].format(options.name) if options.subject.name in SUBJECTS else ""}
        files[folder / "lesson" / page] = PAGE.format(**words, links=link_answers(answers, "../answers"))
        path = folder / "lesson" / before
        # The first paragraph of a page leads to its neighbours.
        title, ways, rest = path.read_text(encoding="utf-8").split("\n\n", 2)
        files[path] = f"{title}\n\n{ways} · {words['forward']}[{number}. {options.name}]({page})\n\n{rest}"
        path = folder / f"README{words['suffix']}"
        section = SECTION.format(**words, links=link_answers(answers, "answers"))
        files[path] = add_section(path.read_text(encoding="utf-8"), section)
    return files


def link_answers(paths, folder):
    """Return links to the answers in a folder, on two lines."""
    pairs = zip(FRAMEWORKS.values(), paths, strict=True)
    first, second, *others = (f"[{framework}]({folder}/{path.name})" for framework, path in pairs)
    return f"{first} · {second} ·\n{' · '.join(others)}"


def add_section(text, section):
    """Return the text of a lesson with a section after those of its exercises."""
    lines = text.splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if re.match(r"## \d+\. ", line))
    after = re.compile(r"## |\[[^]]+\]: ")  # a chapter, or where links lead
    end = next((i for i in range(last + 1, len(lines)) if after.match(lines[i])), None)
    if end is None:
        return f"{text}\n{section.rstrip()}\n"
    return "".join([*lines[:end], section, *lines[end:]])


def add_entry(text, exercise, number, options):
    """Return the text of exercises.toml with the new entry after the last of the subject; exercise is the base."""
    entry = [
        "[[exercise]]",
        f"name = {quote(options.name)}",
        f"subject = {quote(options.subject.name)}",
        f"number = {number}",
        f"from = {quote(exercise.name)}",
        *([f"reads = {quote(exercise.reads)}"] if exercise.reads else []),
        f"trains = {quote(exercise.trains)}",
        f"predicts = {quote(exercise.predicts)}",
    ]
    if exercise.trains:
        entry.append(f"parameters = {exercise.parameters:_}")
    if exercise.test_size:
        entry.append(f"test_size = {exercise.test_size}")
    entry += [f"en = {quote(options.en)}", f"ja = {quote(options.ja)}"]
    figures = {option: int(value) if value.isdigit() else value for option, value in exercise.figure_options.items()}
    for table, values in (("figure_options", figures), ("network_options", exercise.network_options)):
        if values:
            entry += ["", f"[exercise.{table}]", *(f"{option} = {quote(value)}" for option, value in values.items())]
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("[[")] + [len(lines)]
    last = 0
    for start, end in zip(starts, starts[1:], strict=False):
        subject = re.compile(rf"subject\s*=\s*[\"']{options.subject.name}[\"']")
        if lines[start].startswith("[[exercise]]") and any(subject.match(line) for line in lines[start:end]):
            # Comments at its end belong to the entry after it.
            last = max(i for i in range(start, end) if lines[i].strip() and not lines[i].startswith("#"))
    lines[last + 1 : last + 1] = ["", *entry]
    return "\n".join(lines) + "\n"


def quote(value):
    """Return a truth value, number, text or list of texts as TOML writes it, which is as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def write_all(files):
    """Write {path: text}, each file beside its place first, so that a full disk leaves all as it was."""
    parts = {path: path.with_name(f".part-{path.name}") for path in files}
    try:
        for path, part in parts.items():
            part.write_text(files[path], encoding="utf-8", newline="\n")
        read_exercises(parts[EXERCISES])  # raises, while nothing is in its place yet, where the entry does not fit
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def main():
    try:
        options = read_options()
        exercise, folder = options.base, REPOSITORY / options.subject.folder / "answers"
        number = 1 + max(other.number for other in read_exercises() if other.subject == exercise.subject)
        files = {}
        for framework in FRAMEWORKS:
            text = answer_path(exercise, framework).read_text(encoding="utf-8")
            path = folder / f"{number:02}_{options.name}_{framework}.py"
            if path.exists():
                stop(f"{path.name}: there is such a file: remove it, or give another name")
            files[path] = make_answer(text, exercise, framework, number, options)
        files |= add_to_lesson(files, number, options)
        files[EXERCISES] = add_entry(EXERCISES.read_text(encoding="utf-8"), exercise, number, options)
        write_all(files)
    except (OSError, ValueError, SyntaxError) as error:
        stop(error)
    print(f"Exercise {number}, {options.name}, is now as {exercise.name}:")
    print(*(f"  {path.relative_to(REPOSITORY).as_posix()}" for path in files), sep="\n")
    print(f"""What is left to do:
  1. Write what is new in the four answers, and name it after "New here" in their docstrings: tools/copies.py tells
     where the two do not agree.
  2. In exercises.toml, correct what is copied from {exercise.name}: parameters, sizes and options.
  3. Write its page in lesson/ and its section in README.md, in both languages, and name it in their lists of contents.
  4. make format
  5. make lesson-figures EXERCISE={options.name}
  6. make test""")


if __name__ == "__main__":
    main()
