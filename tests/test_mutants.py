"""Every mutation of tests/mutations/ can be planted, and tools/mutants.py tells what tests find from what they miss.

Whether the tests find them all, `make mutants` tells.
"""

import re
import subprocess
import sys

import mutants
import pytest
from conftest import FRAMEWORKS, ROOT, stopped

MUTATIONS = mutants.read_mutations()


def test_there_are_mutations_of_all_kinds_and_frameworks():
    assert len(MUTATIONS) >= 120 and len({mutation.title for mutation in MUTATIONS}) == len(MUTATIONS)
    files = {mutation.file for mutation in MUTATIONS}
    for part in (*(f"_{name}.py" for name in FRAMEWORKS), "tools/", "Dataset/", "Question_digits"):
        assert any(part in file for file in files), part


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.title)
def test_it_can_be_planted(mutation):
    """The old text stands once, the new one is no other Python than the file's."""
    path, text = mutants.plant(mutation, ROOT)
    assert text != path.read_text("utf-8")
    compile(text, path, "exec")
    assert "\n" not in mutation.does and mutation.does.endswith(".")


def test_the_tests_that_they_name_are_there():
    wanted = {test for mutation in MUTATIONS for test in mutation.tests}
    files = sorted({test.split("::")[0] for test in wanted})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stdout
    there = set(result.stdout.splitlines())
    there |= {test.split("[")[0] for test in there}
    assert wanted <= there, wanted - there


CODE = """
def double(number):
    return 2 * number


def half(number):
    return number / 2
"""
TEST = """
import double
import pytest


@pytest.fixture
def four():
    assert double.half(8) == 4
    return 4


def test_double():
    assert double.double(3) == 6


def test_message():
    assert double.double(3) == 6, "no double"


def test_raises():
    with pytest.raises(TypeError):
        double.double(None)


def test_fixture(four):
    assert four == 4


@pytest.mark.skip
def test_skipped():
    assert double.double(3) == 6
"""
DOUBLE = ("2 * number", "3 * number")
OUTCOMES = {  # what is changed, and the test that is run, make ...
    "an assertion": (*DOUBLE, ["double"], mutants.CAUGHT, "assert 9 == 6"),
    "one with a message": (*DOUBLE, ["message"], mutants.CAUGHT, "no double"),
    "what raises no longer": ("2 * number", "2 * (number or 1)", ["raises"], mutants.CAUGHT, "DID NOT RAISE"),
    "the second of two": (*DOUBLE, ["raises", "double"], mutants.CAUGHT, "assert 9 == 6"),
    "nothing": ("2 * number", "number * 2", ["double"], mutants.SURVIVED, ""),
    "an error": ("2 * number", "2 * name", ["double"], mutants.BROKEN, "NameError"),
    "no import": ("2 * number", "2 *", ["double"], mutants.BROKEN, "SyntaxError"),
    "a fixture": ("number / 2", "number / 3", ["fixture"], mutants.BROKEN, "assertion"),
    "no test": (*DOUBLE, ["triple"], mutants.BROKEN, "none of its tests ran"),
    "a test that is skipped": (*DOUBLE, ["skipped"], mutants.BROKEN, "none of its tests ran"),
    "no such text": ("4 * number", "3 * number", ["double"], mutants.BROKEN, "stands 0 times"),
    "two places": ("(number):", "(name):", ["double"], mutants.BROKEN, "stands 2 times"),
    "no change": ("2 * number", "2 * number", ["double"], mutants.BROKEN, "is the old one"),
}


def make(old, new, tests, survives="", file="double.py"):
    return mutants.Mutation(
        "toy", "one", "...", file, old, new, tuple(f"test_it.py::test_{t}" for t in tests), survives
    )


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "double.py").write_text(CODE)
    (tmp_path / "test_it.py").write_text(TEST)
    return tmp_path


def test_each_outcome_is_told(toy):
    for what, (old, new, tests, verdict, said) in OUTCOMES.items():
        found, why = mutants.try_mutation(make(old, new, tests), toy)
        assert (found, said in why) == (verdict, True), (what, found, why)
        assert (toy / "double.py").read_text() == CODE, what
    assert sorted(path.name for path in toy.iterdir()) == ["double.py", "test_it.py"]
    assert mutants.try_mutation(make("1", "2", ["double"], file="triple.py"), toy)[1] == "triple.py: no such file"


def test_what_survives_with_a_reason_is_told_apart(toy):
    same = make("2 * number", "number * 2", ["double"], survives="It is the same.")
    assert mutants.try_mutation(same, toy) == (mutants.EXPECTED, "It is the same.")
    verdict, why = mutants.try_mutation(make(*DOUBLE, ["double"], survives="It is the same."), toy)
    assert verdict == mutants.SURVIVED and "said to survive" in why


def test_tests_that_fail_by_themselves_are_told(toy):
    assert mutants.check_selection(("test_it.py::test_double",), toy) == ""
    (toy / "double.py").write_text(CODE.replace(*DOUBLE))
    assert "assert 9 == 6" in mutants.check_selection(("test_it.py::test_double",), toy)
    assert "none of its tests ran" in mutants.check_selection(("test_it.py::test_triple",), toy)


RIGHT = 'does = "One."\nfile = "a.py"\nold = "1"\nnew = ""\ntests = ["test_it.py::test_double"]\n'
WRONG = {
    "no TOML": ("[one", "toy.toml: "),
    "a key without a table": ('does = "One."\n', "toy.toml: does: stands in no table"),
    "a key too few": ("[one]\n" + RIGHT.replace('old = "1"\n', ""), "toy.toml: one: has no old"),
    "a key too many": ("[one]\n" + RIGHT + "colour = 3\n", "toy.toml: one: unknown key colour"),
    "another type": ("[one]\n" + RIGHT.replace('"1"', "1"), "toy.toml: one: old: write a str"),
    "an empty one": ("[one]\n" + RIGHT.replace('"1"', '""'), "toy.toml: one: old: write a str"),
    "no test": ("[one]\n" + RIGHT.replace('["test_it.py::test_double"]', "[]"), "toy.toml: one: tests: write a list"),
    "no text for a test": (
        "[one]\n" + RIGHT.replace('["test_it.py::test_double"]', "[1]"),
        "toy.toml: one: tests must",
    ),
}


def test_mutations_are_read_in_their_order(tmp_path):
    (tmp_path / "b.toml").write_text(f"[two]\n{RIGHT}\n[one]\n{RIGHT}survives = 'It is the same.'\n")
    (tmp_path / "a.toml").write_text(f"[one]\n{RIGHT}")
    found = mutants.read_mutations(tmp_path)
    assert [mutation.title for mutation in found] == ["a/one", "b/two", "b/one"]
    assert found[0].tests == ("test_it.py::test_double",) and found[0].new == "" == found[1].survives
    assert found[2].survives == "It is the same."


@pytest.mark.parametrize("text, said", WRONG.values(), ids=WRONG)
def test_a_malformed_file_is_told_in_one_line(tmp_path, text, said):
    (tmp_path / "toy.toml").write_text(text)
    with pytest.raises(mutants.MutationError, match=f"^{re.escape(said)}") as error:
        mutants.read_mutations(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments", [["--only", "no_such"], ["--jobs", "0"], ["--jobs", "many"], ["--colour"], ["--only"]]
)
def test_wrong_options_end_in_one_line(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["mutants.py", *arguments])
    line = stopped(capsys, mutants.main)
    assert line.startswith("mutants.py: ") and arguments[0] in line


def test_kinds_and_names_choose():
    names = [mutation.title for mutation in mutants.choose(MUTATIONS, ["newts", "tools/parity_one_bound"])]
    assert names == [each.title for each in MUTATIONS if each.kind == "newts"] + ["tools/parity_one_bound"]
    assert mutants.choose(MUTATIONS, []) == MUTATIONS
