"""Check that what the answers share is the same in each of them, and with --fix make it so.

An answer is one file that runs alone, so what an earlier exercise taught stands in it again. The comment

    # As in bin_dataset_pytorch.py

names where: every function and class from there to the next such comment, or to `# New here`, must equal, line for
line, the one of that name in that file, of whichever subject. The named file must be the one that teaches it, not a
copy itself. Two files that hold the same function or class without such a comment are an error too.

    python tools/copies.py         exit status 1, and a line for each difference
    python tools/copies.py --fix   carry each function from the file that teaches it to all its copies
"""

import argparse
import ast
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
SECTION = re.compile(r"# (?:As in (?P<source>\w+\.py)|New here)\Z")


class Piece(NamedTuple):
    """A function or class of an answer: lines[first:last], and the file that its comment names, None where new."""

    path: Path
    name: str
    first: int
    last: int
    text: str
    source: str | None


def read_pieces(path):
    """Return the Pieces of an answer by name, in order; SyntaxError where the file is no Python."""
    lines = path.read_text(encoding="utf-8").splitlines()
    sections = {number: match["source"] for number, line in enumerate(lines) if (match := SECTION.match(line))}
    pieces = {}
    for node in ast.parse("\n".join(lines), filename=str(path)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            source = next((sections[number] for number in range(first, -1, -1) if number in sections), None)
            text = "\n".join(lines[first : node.end_lineno])
            pieces[node.name] = Piece(path, node.name, first, node.end_lineno, text, source)
    return pieces


def find_differences(folders):
    """Return (messages, mends) for folders of answers; a mend is a (copy, original) that --fix can carry over."""
    messages, mends, taught = [], [], defaultdict(list)
    paths = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        if path.name in paths:
            messages.append(f"{path} has the name of {paths[path.name]}, and '# As in' could mean either: rename one")
        paths.setdefault(path.name, path)
    files = {name: read_pieces(path) for name, path in paths.items()}
    for file, pieces in files.items():
        for piece in pieces.values():
            where = f"{file}:{piece.first + 1}: {piece.name}"
            if piece.source is None:
                taught[piece.text].append(where)
                continue
            original = files.get(piece.source, {}).get(piece.name)
            if original is None:
                messages.append(f"{where} is said to be as in {piece.source}, which has none")
            elif original.source is not None:
                messages.append(
                    f"{where} is said to be as in {piece.source}, which has it from {original.source}: name that"
                )
            elif original.text != piece.text:
                messages.append(f"{where} is not as in {piece.source}")
                mends.append((piece, original))
    for places in taught.values():
        if len(places) > 1:
            messages.append(f"{' and '.join(places)} are the same: put '# As in' above all but the first taught")
    return messages, mends


def fix(mends):
    """Write each original over its copy, from the last line of a file up, so that line numbers stay true."""
    for copy, original in sorted(mends, key=lambda mend: mend[0].first, reverse=True):
        lines = copy.path.read_text(encoding="utf-8").splitlines()
        lines[copy.first : copy.last] = original.text.splitlines()
        copy.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{copy.path.name}: {copy.name} is now as in {original.path.name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fix", action="store_true", help="carry each function to its copies")
    folders = sorted(REPOSITORY.glob("Question_*/answers"))
    parser.add_argument("answers", nargs="*", type=Path, default=folders, help="folders of answers, as one (all)")
    options = parser.parse_args()
    if options.fix:
        fix(find_differences(options.answers)[1])
    messages, _ = find_differences(options.answers)
    print(*messages, sep="\n", end="\n" if messages else "")
    sys.exit(1 if messages else 0)


if __name__ == "__main__":
    main()
