"""Check that what the answers share is the same in each of them; with --fix, make it so.

An answer is one file that runs alone, so what an earlier exercise taught stands in it again. The end of its docstring
says what is new, and from where it has the rest:

    New here: CHANNELS, Network. As in 04_semaseg_dataset_pytorch.py: read_mask. All else is as in 09_concat_pytorch.py.

The last file, the base, is the answer to the exercise that this one starts from, by exercises.toml; all files are of
one framework. "New here" may be absent, and there may be none or several "As in". The answer to the first exercise of a
subject says "Everything is new here." instead. The names are those of pieces: functions, classes, constants, `__main__`
(the block under `if __name__ == "__main__"`) and `__setup__` (other statements outside functions, such as those around
the import of a framework; `__setup_2__` where they stand apart). Comments right above a piece belong to it. Imports are
no pieces. This tool checks that

* a piece that is named new differs from those of its name in the base and in all earlier answers to the subject;
* every other piece equals, line for line, the one in the file that the docstring gives for it;
* pieces without a framework, framework_free in exercises.toml, equal those in the PyTorch answer to the exercise;
* any two pieces stand in the same order in all answers to a subject.

    python tools/copies.py         exit status 1, and a line for each difference
    python tools/copies.py --fix   copy each piece from the answer that teaches it to all that have it from there

The answer that teaches a piece is found by following the docstrings back to the one that names it new; a piece without
a framework is taught in a PyTorch answer. --fix takes the copy there as the true one, so edit that: an edit to another
copy is overwritten. It changes no docstring, and moves no piece.
"""

import argparse
import ast
import itertools
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from exercises import EXERCISES, FRAMEWORKS, REPOSITORY, Exercise, name_of, read_exercises, read_subjects

NAMES = r"\w+(?:, \w+)*"
CLAIMS = re.compile(
    rf"(?:New here: (?P<new>{NAMES})\. )?(?P<as_in>(?:As in \w+\.py: {NAMES}\. )*)All else is as in (?P<base>\w+\.py)\."
    r"|Everything is new here\."
)
AS_IN = re.compile(rf"As in (\w+\.py): ({NAMES})\.")
CLAIM_STARTS = ("New here:", "As in", "All else is", "Everything is new")


class Piece(NamedTuple):
    """A piece of an answer: lines[first:last], and the file that it is to be as in, None where it is new."""

    path: Path
    name: str
    first: int
    last: int
    text: str
    source: str | None


class Claims(NamedTuple):
    """What an answer's docstring says: the names after "New here", (name, file) of each "As in", and the last file.

    base is None where everything is new. line, from 1, is where it says so.
    """

    new: tuple[str, ...]
    as_in: tuple[tuple[str, str], ...]
    base: str | None
    line: int


class Answer(NamedTuple):
    """An answer that could be read; base is the name of the answer that it starts from by exercises.toml, or None."""

    path: Path
    exercise: Exercise
    framework: str
    base: str | None
    claims: Claims
    pieces: dict[str, Piece]


def read_claims(path):
    """Return the Claims of an answer, None where its docstring makes none; SyntaxError where it is no Python."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    paragraphs = re.split(r"\n\s*\n", ast.get_docstring(tree) or "")
    matches = [match for part in paragraphs if (match := CLAIMS.fullmatch(" ".join(part.split())))]
    if len(matches) != 1:
        return None
    new, as_in, base = matches[0].group("new", "as_in", "base")
    pairs = [(name, file) for file, names in AS_IN.findall(as_in or "") for name in names.split(", ")]
    raw = tree.body[0].value.value.splitlines()
    line = tree.body[0].lineno + next((i for i, text in enumerate(raw) if text.startswith(CLAIM_STARTS)), 0)
    return Claims(tuple(new.split(", ") if new else ()), tuple(pairs), base, line)


def read_pieces(path):
    """Return the Pieces of an answer by name, in order.

    Raises SyntaxError where the file is no Python, ValueError where a name comes twice or the bytes are not UTF-8.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    body = ast.parse("\n".join(lines), filename=str(path)).body
    claims = read_claims(path)
    last_import = max((number for number, node in enumerate(body) if is_import(node)), default=-1)
    groups, setups = [], 0  # (names, first statement, last statement)
    for number, node in enumerate(body):
        is_docstring = number == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
            continue
        # A constant between imports is there for what is imported next, as KERAS_BACKEND is: it is no piece by itself.
        names = list_names(node) if number > last_import else []
        if not names and groups and groups[-1][0][0].startswith("__setup") and groups[-1][2] is body[number - 1]:
            groups[-1] = groups[-1][0], groups[-1][1], node
            continue
        setups += not names
        groups.append((names or [f"__setup_{setups}__" if setups > 1 else "__setup__"], node, node))
    pieces = {}
    for names, first_node, last_node in groups:
        first = min(part.lineno for part in (first_node, *getattr(first_node, "decorator_list", []))) - 1
        while first and lines[first - 1].startswith("#"):
            first -= 1
        for name in names:
            if name in pieces:
                raise ValueError(f"{first + 1}: {name}: stands here and in line {pieces[name].first + 1}: put together")
            source = claims and (None if name in claims.new else dict(claims.as_in).get(name, claims.base))
            text = "\n".join(lines[first : last_node.end_lineno])
            pieces[name] = Piece(path, name, first, last_node.end_lineno, text, source)
    return pieces


def is_import(node):
    """Return whether a statement is an import, or holds one that is made when the file is run."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return False
    return any(isinstance(part, ast.Import | ast.ImportFrom) for part in ast.walk(node))


def list_names(node):
    """Return the names of the pieces that a statement is: two where it is A, B = 1, 2; none where it is no piece."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        names = [
            name.id for name in names if isinstance(name.ctx, ast.Store)
        ]  # none in A[0] = 1, which defines nothing
        return names if all(name.isupper() for name in names) else []
    return ["__main__"] if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" else []


class Answers:
    """All answers in some folders, and what is wrong with them."""

    def __init__(self, folders, exercises_file=EXERCISES):
        """Read them; raises what exercises.read_exercises does."""
        self.exercises = {exercise.name: exercise for exercise in read_exercises(exercises_file)}
        self.rank = {name: number for number, name in enumerate(self.exercises)}
        self.free = {subject.name: subject.framework_free for subject in read_subjects(exercises_file)}
        self.paths, self.answers, self.messages = {}, {}, []
        for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
            if self.paths.setdefault(path.name, path) != path:
                self.messages.append(f"{show(path)}:1: has the name of {show(self.paths[path.name])}: rename one")
                continue
            try:
                self.answers[path.name] = self.read(path)
            except SyntaxError as error:
                self.messages.append(f"{show(path)}:{error.lineno}: no Python ({error.msg}): correct it")
            except UnicodeDecodeError:
                self.messages.append(f"{show(path)}:1: not UTF-8: save it as UTF-8")
            except ValueError as error:
                self.messages.append(f"{show(path)}:{error}")
        frameworks = list(FRAMEWORKS)  # PyTorch, which teaches what has no framework, is the first
        self.ordered = sorted(
            self.answers.values(),
            key=lambda answer: (self.rank[answer.exercise.name], frameworks.index(answer.framework)),
        )

    def read(self, path):
        """Return an Answer; raises ValueError with the rest of a message, from the line number on, where it cannot."""
        try:
            name, framework = name_of(path.stem)
        except ValueError as error:
            raise ValueError(f"1: {error}") from error
        if name not in self.exercises:
            raise ValueError(f"1: {name} has no entry in exercises.toml: add one, or rename the file")
        exercise = self.exercises[name]
        if path.stem != f"{exercise.stem}_{framework}":
            raise ValueError(f"1: the number is {exercise.number} by exercises.toml: correct the one that is wrong")
        base = f"{self.exercises[exercise.base].stem}_{framework}.py" if exercise.base else None
        claims, wanted = read_claims(path), f"New here: A, B. All else is as in {base}."
        if claims is None:
            wanted = wanted if base else "Everything is new here."
            raise ValueError(f"1: the docstring does not say what is new: let its last paragraph be like {wanted!r}")
        return Answer(path, exercise, framework, base, claims, read_pieces(path))

    def check(self):
        """Return a list of messages."""
        messages = list(self.messages)
        for answer in self.ordered:
            messages += self.check_claims(answer)
            messages += self.check_pieces(answer)
            messages += self.check_framework_free(answer)
        return messages + list(self.check_order())

    def is_earlier(self, file, answer):
        """Return whether a file is the answer to an earlier exercise in the same framework."""
        try:
            name, framework = name_of(Path(file).stem)
        except ValueError:
            return False
        rank = self.rank.get(name, len(self.rank))
        return file in self.paths and framework == answer.framework and rank < self.rank[answer.exercise.name]

    def check_claims(self, answer):
        """Yield a message for each thing that is wrong with the docstring itself."""
        where, claims = f"{show(answer.path)}:{answer.claims.line}", answer.claims
        head = f"Exercise {answer.exercise.number}, {answer.exercise.name}, in {FRAMEWORKS[answer.framework]}: "
        if not answer.path.read_text(encoding="utf-8").startswith(f'"""{head}'):
            yield f"{show(answer.path)}:1: the docstring does not begin with {head!r}: correct it"
        if claims.base != answer.base:
            wanted = f"All else is as in {answer.base}." if answer.base else "Everything is new here."
            yield f"{where}: the docstring and exercises.toml differ in what it starts from: write {wanted!r}"
        elif answer.base and answer.base not in self.paths:
            yield f"{where}: there is no {answer.base}: add it, or correct from in exercises.toml"
        for file in dict.fromkeys(file for _, file in claims.as_in):
            if not self.is_earlier(file, answer):
                yield f"{where}: {file}: name the answer to an earlier exercise in {FRAMEWORKS[answer.framework]}"
        for name, number in Counter([*claims.new, *dict(claims.as_in)]).items():
            if number > 1 or [other for other, _ in claims.as_in].count(name) > 1:
                yield f"{where}: {name}: named twice in the docstring: name it once"
            if name not in answer.pieces:
                yield f"{where}: {name}: named in the docstring, but not in the file: remove the name"

    def check_pieces(self, answer):
        """Yield a message for each piece that is not what the docstring says."""
        if answer.base is None or answer.claims.base is None:
            return
        as_in = dict(answer.claims.as_in)
        base = self.answers.get(answer.base)  # None where that file has a message of its own
        earlier = [other for other in self.ordered if self.is_earlier(other.path.name, answer)]
        earlier = [other for other in earlier if other.exercise.subject == answer.exercise.subject]
        for name, piece in answer.pieces.items():
            where = f"{show(answer.path)}:{piece.first + 1}: {name}"
            alike = [other.path.name for other in earlier if has(other, name, piece.text)]
            in_base = has(base, name, piece.text)
            if name in answer.claims.new:
                if in_base:
                    yield f"{where}: named new, but as in {answer.base}: remove the name from the docstring"
                elif alike:
                    yield f"{where}: named new, but as in {alike[0]}: write 'As in {alike[0]}: {name}'"
            elif name in as_in:
                file = as_in[name]
                if in_base:
                    yield f"{where}: as in {answer.base} anyway: remove the name from the docstring"
                elif self.is_earlier(file, answer) and file in self.answers and file not in alike:
                    if name in self.answers[file].pieces:
                        yield f"{where}: not as in {file}: run copies.py --fix, or name it new"
                    else:
                        yield f"{where}: {file} has none: name a file that has it, or name it new"
            elif base and not in_base:
                other = f"'As in {alike[0]}'" if alike else "'New here'"
                if name in base.pieces:
                    yield f"{where}: not as in {answer.base}: run copies.py --fix, or name it under {other}"
                else:
                    yield f"{where}: {answer.base} has none: name it under {other}"

    def check_framework_free(self, answer):
        """Yield a message for each framework-free piece that differs from PyTorch's."""
        teacher = self.find_pytorch(answer)
        for name in self.free[answer.exercise.subject] if teacher else ():
            piece, original = answer.pieces.get(name), teacher.pieces.get(name)
            if piece and original and piece.text != original.text:
                where = f"{show(answer.path)}:{piece.first + 1}: {name}"
                yield f"{where}: has no framework in it, but is not as in {teacher.path.name}: run copies.py --fix"
            elif piece and not original:
                where = f"{show(answer.path)}:{piece.first + 1}: {name}"
                yield f"{where}: has no framework in it, but {teacher.path.name} has none: remove it, or add it there"
            elif original and not piece:
                yield f"{show(answer.path)}:1: {name}: missing: copy it from {teacher.path.name}"

    def check_order(self):
        """Yield a message for each answer in which pieces stand in another order than in one before it."""
        for number, answer in enumerate(self.ordered):
            for other in self.ordered[:number]:
                if other.exercise.subject != answer.exercise.subject:
                    continue
                places = {name: place for place, name in enumerate(other.pieces)}
                common = [name for name in answer.pieces if name in places]
                wrong = [pair for pair in itertools.pairwise(common) if places[pair[0]] > places[pair[1]]]
                if wrong:
                    first, second = wrong[0]
                    where = f"{show(answer.path)}:{answer.pieces[second].first + 1}: {second}"
                    yield f"{where}: stands after {first}, but in {other.path.name} before it: move one of them"
                    break

    def find_pytorch(self, answer):
        """Return PyTorch's Answer to the same exercise, None where there is none or for that answer itself."""
        if answer.framework == "pytorch":
            return None
        return self.answers.get(f"{answer.exercise.stem}_pytorch.py")

    def find_original(self, answer, name):
        """Return the true copy of a piece: the Piece of that name in the answer that teaches it."""
        file = None
        if answer.framework != "pytorch" and name in self.free[answer.exercise.subject]:
            file = f"{answer.exercise.stem}_pytorch.py"
        elif name in dict(answer.claims.as_in):
            named = dict(answer.claims.as_in)[name]
            file = named if self.is_earlier(named, answer) else None
        elif name not in answer.claims.new and answer.claims.base:
            file = answer.base
        teacher = self.answers.get(file)
        if teacher is None or name not in teacher.pieces:
            return answer.pieces[name]
        return self.find_original(teacher, name)

    def fix(self):
        """Write each true copy over the others, from the last line of a file up, so that line numbers stay true."""
        for answer in self.ordered:
            lines, done = answer.path.read_text(encoding="utf-8").splitlines(), set()
            for piece in reversed(answer.pieces.values()):
                original = self.find_original(answer, piece.name)
                if original.text != piece.text and piece.first not in done:  # A, B = 1, 2 is two pieces in one place
                    done.add(piece.first)
                    lines[piece.first : piece.last] = original.text.splitlines()
                    print(f"{show(answer.path)}: {piece.name} is now as in {original.path.name}")
            if done:
                part = answer.path.with_name(f".part-{answer.path.name}")
                part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
                part.replace(answer.path)


def has(answer, name, text):
    """Return whether an Answer, or None, has a piece of that name and text."""
    return answer is not None and name in answer.pieces and answer.pieces[name].text == text


def show(path):
    """Return a path as messages show it: below the repository where it lies there."""
    return path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else path


def stop(message):
    """End with one line and status 2."""
    print(f"copies.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--fix", action="store_true", help="copy each piece to where it is to be the same")
    parser.add_argument("--exercises", type=Path, default=EXERCISES, help="another exercises.toml")
    parser.add_argument("answers", nargs="*", type=Path, help="folders of answers (those of all subjects)")
    options = parser.parse_args()
    try:
        subjects = read_subjects(options.exercises)
        folders = options.answers or [REPOSITORY / subject.folder / "answers" for subject in subjects]
        for folder in folders:
            if not any(folder.glob("*.py")):
                stop(f"{folder}: no .py file here: name folders of answers")
        if options.fix:
            Answers(folders, options.exercises).fix()
        messages = Answers(folders, options.exercises).check()
    except (OSError, ValueError) as error:  # of exercises.toml
        stop(error)
    print(*messages, sep="\n", end="\n" if messages else "")
    sys.exit(1 if messages else 0)


if __name__ == "__main__":
    main()
