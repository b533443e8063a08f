"""Plant the faults of tests/mutations/ one at a time, and tell which of them the tests miss.

    python tools/mutants.py [--only "newts pytorch_no_momentum"] [--jobs 2] [--first]

A mutation is a table of a TOML file; the file's name is its kind, the table's its name:

    [images_as_bgr]
    does = "Images are fed as BGR."                # one line
    file = "Question_semaseg/answers/01_bin_dataset_pytorch.py"
    old = 'cv2.resize(image, (size, size)'         # stands in the file exactly once
    new = 'cv2.resize(image[..., ::-1], (size, size)'
    tests = ["tests/test_pieces.py::test_..."]     # node ids of pytest, one of which must fail
    survives = "..."                               # only where no test can tell it from what is right, and why

Each is planted in a copy of the repository: of the files that git tracks, or would. In an answer it must stand in the
piece that teaches it, for tools/copies.py --fix carries it to every copy of that piece. Caught is what makes an
assertion of one of its tests fail. What ends a test in any other way, such as an import that fails, proves nothing of
the tests, and is reported as an error in the mutation. The exit status is 1 where one survived or is in error.
"""

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MUTATIONS = REPOSITORY / "tests/mutations"
LONGEST = 300  # seconds that the tests of a mutation may take
KEYS = {"does": str, "file": str, "old": str, "new": str, "tests": list, "survives": str}
# How the message of a failed test begins where an assertion failed: with its expression, its message, or pytest.fail's.
ASSERTED = ("assert ", "AssertionError", "Failed: ")
CAUGHT, SURVIVED, EXPECTED, BROKEN = "caught", "SURVIVED", "survived, as it says", "ERROR"


@dataclass(frozen=True)
class Mutation:
    """A fault to plant; survives is empty where a test must find it."""

    kind: str
    name: str
    does: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    @property
    def title(self):
        """The kind and the name."""
        return f"{self.kind}/{self.name}"


class MutationError(Exception):
    """What is wrong with a mutation, in one line."""


def read_mutations(folder=MUTATIONS):
    """Return the mutations of all TOML files of a folder, in the order of the files' names and of the tables in each.

    Raises MutationError, which names the file and the table, where one is malformed, and OSError where it cannot be
    read.
    """
    mutations = []
    for path in sorted(folder.glob("*.toml")):
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # no TOML, or no UTF-8
            raise MutationError(f"{path.name}: {error}") from error
        for name, table in tables.items():
            where = f"{path.name}: {name}"
            if not isinstance(table, dict):
                raise MutationError(f"{where}: stands in no table: write [its_name] above it")
            for key in KEYS.keys() | table.keys():
                if key not in KEYS:
                    raise MutationError(f"{where}: unknown key {key}: give {', '.join(KEYS)}")
                if key not in table and key != "survives":
                    raise MutationError(f"{where}: has no {key}")
                if key in table and not (isinstance(table[key], KEYS[key]) and (table[key] or key == "new")):
                    raise MutationError(f"{where}: {key}: write a {KEYS[key].__name__} that is not empty")
            if not all(isinstance(test, str) for test in table["tests"]):
                raise MutationError(f"{where}: tests must be node ids of pytest")
            mutations.append(Mutation(path.stem, name, **table | {"tests": tuple(table["tests"])}))
    if not mutations:
        raise MutationError(f"{folder}: no mutation in it")
    return mutations


def plant(mutation, repository):
    """Return the path of the file that a mutation changes, below repository, and its text with the fault planted.

    Raises MutationError where there is no such file, or the old text does not stand in it exactly once.
    """
    path = repository / mutation.file
    if not path.is_file():
        raise MutationError(f"{mutation.file}: no such file")
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise MutationError(f"the old text stands {text.count(mutation.old)} times in {mutation.file}, not once")
    if mutation.new == mutation.old:
        raise MutationError("the new text is the old one")
    return path, text.replace(mutation.old, mutation.new)


def is_answer(file):
    """Return whether a file, its path given from the repository on, is an answer."""
    return Path(file).match("Question_*/answers/*.py")


def copy_repository(folder):
    """Copy the files that git tracks, or would track, to a folder. Raises MutationError where git lists none."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, capture_output=True
    )
    if listed.returncode:
        raise MutationError(f"git ls-files: {listed.stderr.decode(errors='replace').strip()}")
    for name in map(os.fsdecode, filter(None, listed.stdout.split(b"\0"))):
        if (REPOSITORY / name).is_file():  # not what was deleted and is still in the index
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)


def run(command, repository):
    """Run Python with the command in a copy of the repository; return what came of it, or None if it took too long."""
    # Without .pyc files: a fault of the same length, planted within a second, would be taken for the file before it.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        environment.setdefault(name, "1")  # the tests are small, and more threads than cores are slow
    try:
        return subprocess.run(
            [sys.executable, *command],
            cwd=repository,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        return None


def run_tests(tests, repository):
    """Run tests in a copy of the repository, up to the first that fails. Return "" where all pass, else what failed.

    Raises MutationError where one ended otherwise than by an assertion, and where none ran.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/tests", f"--junit-xml={report}"]
        done = run(["-m", "pytest", *options, *tests], repository)
        if done is None:
            raise MutationError(f"its tests took longer than {LONGEST} s")
        cases = list(xml.etree.ElementTree.parse(report).iter("testcase")) if report.exists() else []
    for case in cases:
        for trouble in (*case.findall("error"), *case.findall("failure")):
            message = " ".join(trouble.get("message", "").split())[:200]
            if trouble.tag == "error" or not message.startswith(ASSERTED):
                # Of a file that cannot be imported, the report has the reason in its text alone, after an E.
                reasons = re.findall(r"^E +(.*)", trouble.text or "", re.MULTILINE) or [message]
                raise MutationError(f"{case.get('name')} ended otherwise than by an assertion: {reasons[-1][:200]}")
            return f"{case.get('name')}: {message}"
    if done.returncode or not any(case.find("skipped") is None for case in cases):
        lines = (done.stdout + done.stderr).split("\n")
        last = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), "all were skipped, or there is none"
        )
        raise MutationError(f"none of its tests ran: {last}")
    return ""


def try_mutation(mutation, repository):
    """Plant a mutation in a copy of the repository, run its tests, and restore the copy.

    Return CAUGHT and what failed, SURVIVED, EXPECTED and why, or BROKEN and what is wrong.
    """
    before = {path: path.read_bytes() for path in repository.glob("Question_*/answers/*.py")}
    try:
        path, text = plant(mutation, repository)
        before[path] = path.read_bytes()
        path.write_text(text, encoding="utf-8")
        if is_answer(mutation.file):
            fixed = run(["tools/copies.py", "--fix"], repository)
            if fixed is None or fixed.returncode:
                why = fixed.stdout.splitlines()[-1:] + fixed.stderr.splitlines()[-1:] if fixed else ["took too long"]
                raise MutationError(f"copies.py --fix: {' '.join(why)}")
            if path.read_text(encoding="utf-8") != text:
                raise MutationError(f"copies.py --fix undoes it: plant it in the file from which {path.name} has it")
        failed = run_tests(mutation.tests, repository)
    except MutationError as error:
        return BROKEN, str(error)
    finally:
        for path, data in before.items():
            if path.read_bytes() != data:
                path.write_bytes(data)
    if failed:
        return (SURVIVED, f"it is said to survive, but: {failed}") if mutation.survives else (CAUGHT, failed)
    return (EXPECTED, mutation.survives) if mutation.survives else (SURVIVED, "")


def check_selection(tests, repository):
    """Return "" where tests pass without a mutation, else what fails."""
    try:
        return run_tests(tests, repository)
    except MutationError as error:
        return str(error)


def work_side_by_side(function, items, jobs, folder):
    """Yield (item, function(item, copy of the repository), seconds) for each item, as they get ready, from threads.

    Each thread has a copy of its own below folder.
    """
    waiting, ready = queue.SimpleQueue(), queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def work(repository):
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            start = time.perf_counter()
            try:
                found = function(item, repository)
            except BaseException as error:  # is raised again where it is waited for
                found = error
            ready.put((item, found, time.perf_counter() - start))

    for number in range(min(jobs, len(items))):
        repository = folder / str(number)
        if not repository.exists():
            copy_repository(repository)
        threading.Thread(target=work, args=(repository,), daemon=True).start()
    for _ in items:
        item, found, seconds = ready.get()
        if isinstance(found, BaseException):
            raise found
        yield item, found, seconds


def stop(message):
    """End with one line and status 2."""
    print(f"mutants.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def choose(mutations, names):
    """Return the mutations of which the kind, the name or kind/name is in names; all where there are no names."""
    known = {name for mutation in mutations for name in (mutation.kind, mutation.name, mutation.title)}
    for name in names:
        if name not in known:
            kinds = ", ".join(dict.fromkeys(mutation.kind for mutation in mutations))
            stop(f"--only {name}: no such mutation, nor kind: the kinds are {kinds}")
    return [each for each in mutations if not names or {each.kind, each.name, each.title} & set(names)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--only", default="", help="kinds and names, as one argument (all)")
    parser.add_argument("--jobs", type=int, default=1, help="how many to try side by side (%(default)s)")
    parser.add_argument("--first", action="store_true", help="first see that the tests pass without a mutation")
    options = parser.parse_args()
    if not 1 <= options.jobs <= 64:
        stop(f"--jobs {options.jobs}: give 1 to 64")
    try:
        chosen = choose(read_mutations(), options.only.replace(",", " ").split())
        found, start = {}, time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="mutants-") as name:
            folder = Path(name)
            if options.first:
                selections = list(dict.fromkeys(mutation.tests for mutation in chosen))
                print(f"running {len(selections)} selections of tests without a mutation", flush=True)
                for tests, wrong, _ in work_side_by_side(check_selection, selections, options.jobs, folder):
                    if wrong:
                        stop(f"without a mutation, {' '.join(tests)} does not pass: {wrong}")
            for mutation, outcome, seconds in work_side_by_side(try_mutation, chosen, options.jobs, folder):
                found[mutation.title], (verdict, why) = outcome[0], outcome
                print(f"[{len(found)}/{len(chosen)}] {mutation.title}: {verdict}, {seconds:.0f} s", flush=True)
                if verdict != CAUGHT:
                    print(f"    {mutation.does} {why}", flush=True)
    except (MutationError, OSError) as error:
        stop(error)
    numbers = ", ".join(f"{list(found.values()).count(each)} {each}" for each in (CAUGHT, SURVIVED, EXPECTED, BROKEN))
    print(f"{len(found)} mutations in {(time.perf_counter() - start) / 60:.0f} min: {numbers}")
    for title, verdict in found.items():
        if verdict in (SURVIVED, BROKEN):
            print(f"{verdict}: {title}")
    raise SystemExit(1 if {SURVIVED, BROKEN} & set(found.values()) else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("mutants.py: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
