"""Write a starter file for an exercise: its answer, with the code of what the exercise teaches taken out.

    python tools/start.py --exercise nearest --framework pytorch

writes Question_semaseg/attempts/07_nearest_pytorch.py. What the answer's docstring calls new has no code there, only
its signature, its docstring and a pointer to the lesson; until it is written, the file ends in one line that names it.
Constants are left, and so are options, files and main: they are no part of any exercise. An attempt that exists is
never overwritten. When you are done, tools/check.py tells what holds.
"""

import argparse
import ast
import re
import sys
import textwrap

from copies import read_claims, read_pieces
from exercises import FRAMEWORKS, REPOSITORY, answer_path, find_exercise, find_subject

# What serves every exercise and is taught in none: a starter file has it whole.
GIVEN = {
    "main", "__main__", "read_options", "set_up", "stop", "say", "find_images", "open_image", "find_script",
    "find_stage", "save_image", "save_eigenvectors", "write_whole", "save_weights", "load_weights", "read_metrics",
    "write_metrics",
}  # fmt: skip
SUBJECTS = ("semaseg", "digits")  # those at whose exercises check.py can check attempts
CAUGHT = """    except NotImplementedError as error:  # of what is left to write
        stop(error)
"""


def stop(message):
    """End with one line and status 2."""
    print(f"start.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def attempt_path(exercise, framework):
    """Return the path of the attempt at an exercise, beside the folder of the answers."""
    answer = answer_path(exercise, framework)
    return answer.parent.with_name("attempts") / answer.name


def find_lesson(exercise):
    """Return where the lesson on an exercise is, as a message gives it."""
    folder = find_subject(exercise.subject).folder
    page = f"{folder}/lesson/{exercise.stem}.md"
    return page if (REPOSITORY / page).is_file() else f"{folder}/README.md, exercise {exercise.number}"


def list_new(exercise, framework):
    """Return the names of the pieces that are new in an exercise."""
    path = answer_path(exercise, framework)
    claims = read_claims(path)
    return claims.new if claims.base else tuple(read_pieces(path))


def list_functions(node):
    """Return the functions of a function or class: itself, or its methods."""
    if isinstance(node, ast.FunctionDef):
        return [node]
    return [part for part in node.body if isinstance(part, ast.FunctionDef)]


def make_starter(exercise, framework):
    """Return the text of a starter file, and the names of the pieces whose code was taken out."""
    text, new = answer_path(exercise, framework).read_text(encoding="utf-8"), list_new(exercise, framework)
    lines, names, lesson = text.splitlines(keepends=True), [], find_lesson(exercise)
    for node in reversed(ast.parse(text).body):  # from the last line up, so that line numbers stay true
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name in GIVEN or node.name not in new:
            continue
        functions = list_functions(node)
        for function in reversed(functions):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            first = body[0].lineno - 1
            while body is not function.body and lines[first - 1].lstrip().startswith("#"):
                first -= 1  # a comment above the first statement is part of the answer
            indent = " " * body[0].col_offset
            message = f'"{node.name}: not written yet: see {lesson}"'
            lines[first : function.end_lineno] = [f"{indent}raise NotImplementedError({message})\n"]
        names += [node.name] if functions else []
    told = textwrap.fill(f"To write: {', '.join(names[::-1])}. All else is there. The task: {lesson}.", 120)
    text = re.sub(r"^(Everything is new here\.|New here: [^\"]*)$", told, "".join(lines), count=1, flags=re.MULTILINE)
    start = text.index("    except OSError", text.index('if __name__ == "__main__":'))
    return text[:start] + CAUGHT + text[start:], names[::-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--exercise", required=True, type=find_exercise, help="its name, such as nearest")
    parser.add_argument("--framework", default="pytorch", help=f"{', '.join(FRAMEWORKS)} (%(default)s)")
    options = parser.parse_args()
    if options.framework not in FRAMEWORKS:
        stop(f"--framework {options.framework}: no such framework: give {', '.join(FRAMEWORKS)}")
    path = attempt_path(options.exercise, options.framework)
    shown = path.relative_to(REPOSITORY).as_posix()
    try:
        text, names = make_starter(options.exercise, options.framework)
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        stop(f"{shown}: exists, and is never overwritten: rename it, or remove it to start anew")
    except OSError as error:
        stop(f"{error}: fix that first")
    print(f"{shown}: to write: {', '.join(names)}")
    then = f" Then: make check ATTEMPT={shown}" if options.exercise.subject in SUBJECTS else ""
    print(f"The task: {find_lesson(options.exercise)}.{then}")


if __name__ == "__main__":
    main()
