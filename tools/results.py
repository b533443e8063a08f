"""Read what the answers' runs gave, and tell whether an answer is still the one that ran.

assets/results.json is written by tools/draw_figures.py. For each answer it holds the numbers of one run and the hash of
the code that gave them, so that a number in a lesson which belongs to other code is found out.
"""

import ast
import hashlib
import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "Question_semaseg/assets/results.json"


def code_hash(path):
    """Return the SHA-256, as 64 hex digits, of the Python code in a file without its comments, docstrings and layout.

    Raises OSError where the file cannot be read and SyntaxError where it is no Python.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return hashlib.sha256(repr(_describe(tree)).encode()).hexdigest()


def _describe(value):
    """Return a part of a syntax tree as nested lists."""
    if isinstance(value, list):
        return [_describe(item) for item in value]
    if not isinstance(value, ast.AST):
        return value
    fields = dict(ast.iter_fields(value))
    documented = isinstance(value, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and ast.get_docstring(value, clean=False) is not None:
        fields["body"] = fields["body"][1:]
    # Not ast.dump: each release of Python may add a field to a node, empty in older code, and the hash must not change.
    kept = sorted((name, field) for name, field in fields.items() if field is not None and field != [])
    return [type(value).__name__, *([name, _describe(field)] for name, field in kept)]


def read_results(path=RESULTS):
    """Return what assets/results.json holds: {"machine": {...}, "answers": {answer: {"code": hash, "miou": ...}}}.

    Raises OSError where the file cannot be read and ValueError where it is no such file.
    """
    results = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(results, dict) or not isinstance(results.get("answers"), dict):
        raise ValueError("not what tools/draw_figures.py writes")
    return results


def write_results(path, results):
    """Write results, of the shape that read_results returns, whole or not at all."""
    aside = path.with_name(f".part-{path.name}")
    aside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
