"""tools/fill_lessons.py fills what is marked, says what is stale and refuses what is wrong; tools/results.py reads."""

import json
import sys

import fill_lessons
import pytest
import results

OLD = '''"""The old answer."""

import functools

RATE = 0.1  # of learning


@functools.cache
def build(size):
    """Return a network."""
    layers = []
    for _ in range(size):
        layers.append("conv")
    layers.append("relu")
    layers.append("norm")

    layers.append("last")
    return layers


class Network:
    size = 3

    def forward(self, x):
        return x + 1

    @property
    def width(self):
        return 2


def gone():
    return 1


def same():
    return 0
'''

NEW = '''"""The new answer."""


def build(size):
    """Return a network."""
    layers = []
    for _ in range(size):
        layers.append("conv")
    layers.append("relu")
    layers.append("norm")

    layers.append("best")
    return layers


# As in old_pytorch.py
def same():
    return 0


# New here
def come():
    return 2
'''

README = """# The repository

| | exercise | answers |
|---|---|---|
| 1 | `zebra` | |
| 2 | [`apple`](Question_semaseg/README.md) | |

<!-- results -->
<!-- end -->
"""


def measured(miou, seconds):
    numbers = {"iterations": 600, "miou": miou, "iou": {"background": 0.9, "newt": 2 * miou - 0.9}}
    numbers |= {"pixel_accuracy": 0.95, "seconds": seconds, "milliseconds_per_iteration": seconds / 0.6}
    return numbers | {"peak_memory_mb": 1234.5, "first_loss": 1.0986, "last_loss": 0.25}


RESULTS = {
    "machine": {"cores": 2, "memory_gb": 24},
    "answers": {
        "apple_pytorch": measured(0.7, 51.4),
        "apple_keras": measured(0.65, 60),
        "lemon_keras": {"iterations": 9, "first_loss": 0.5, "seconds": 7},
        "uneven_keras": {"iterations": 9},
        "uneven_chainer": {"iterations": 60},
        "zebra_chainer": measured(0.5, 200) | {"iterations": 60},
    },
}


@pytest.fixture
def repository(tmp_path):
    """A repository of two answers, results, and a README with a region that is not filled yet."""
    answers, assets = tmp_path / "Question_semaseg/answers", tmp_path / "Question_semaseg/assets"
    answers.mkdir(parents=True)
    assets.mkdir()
    (answers / "old_pytorch.py").write_text(OLD)
    (answers / "new_pytorch.py").write_text(NEW)
    (assets / "results.json").write_text(json.dumps(RESULTS))
    (tmp_path / "README.md").write_text(README)
    return tmp_path


@pytest.fixture
def run(repository, capsys, monkeypatch):
    """Run the tool on the repository with some arguments: (exit status, lines on stdout, lines on stderr)."""

    def run_once(*arguments):
        monkeypatch.setattr(sys, "argv", ["fill_lessons.py", *arguments])
        status = 0
        try:
            fill_lessons.main(repository)
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run_once


@pytest.fixture
def fill(repository):
    """Fill one marker in a lesson and return the text between it and its end."""

    def fill_one(marker, name="README.md"):
        path = repository / "Question_semaseg" / name
        path.write_text(f"before\n<!-- {marker} -->\nanything\n<!-- end -->\nafter\n", "utf-8")
        text, stale = fill_lessons.fill(path, repository)
        assert stale == [(2, marker)]
        before, after = f"before\n<!-- {marker} -->\n\n", "\n\n<!-- end -->\nafter\n"
        assert text.startswith(before) and text.endswith(after)
        return text.removeprefix(before).removesuffix(after)

    return fill_one


def test_code_comes_as_it_stands_in_the_order_named(fill):
    assert fill("code old_pytorch gone build RATE") == (
        "```python\ndef gone():\n    return 1\n\n\n"
        "@functools.cache\n" + OLD[OLD.index("def build") : OLD.index("\n\n\nclass")] + "\n\n\n"
        "RATE = 0.1  # of learning\n```"
    )


def test_a_method_stands_at_the_margin_with_its_decorator(fill):
    wanted = "```python\n@property\ndef width(self):\n    return 2\n```"
    assert fill("code old_pytorch Network.width") == wanted


def test_new_is_what_the_answer_teaches_itself(fill):
    text = fill("new new_pytorch")
    assert "def build(" in text and "def come(" in text and "def same(" not in text
    assert text.index("def build(") < text.index("def come(")


def test_a_difference_shows_the_lines_around_it_and_names_the_piece(fill):
    assert fill("diff old_pytorch new_pytorch build gone come") == "\n".join(
        [
            "```diff",
            "-@functools.cache",
            " def build(size):",
            '     """Return a network."""',
            "...",
            '     layers.append("norm")',
            "",
            '-    layers.append("last")',
            '+    layers.append("best")',
            "     return layers",
            "...",
            "-def gone():",
            "-    return 1",
            "...",
            "+def come():",
            "+    return 2",
            "```",
        ]
    )


@pytest.mark.parametrize("lines", (1, 2))
def test_a_difference_far_from_the_name_shows_the_name(fill, repository, lines):
    """Between the name and the two lines before the change stands nothing (then no dots) or one line."""
    new = repository / "Question_semaseg/answers/new_pytorch.py"
    body = "    step()\n" * lines
    for name, end in (("old", 1), ("new", 2)):
        new.with_name(f"{name}_pytorch.py").write_text(f"def run():\n{body}    last()\n    return {end}\n")
    dots = ["..."] if lines == 2 else []
    shown = [" def run():", *dots, "     step()", "     last()", "-    return 1", "+    return 2"]
    assert fill("diff old_pytorch new_pytorch run").splitlines()[1:-1] == shown


def test_results_of_an_exercise(fill):
    assert fill("results apple").splitlines() == [
        "| `apple`, 600 iterations | PyTorch | TensorFlow | Keras | Chainer |",
        "| --- | --- | --- | --- | --- |",
        "| mIoU | 0.700 | – | 0.650 | – |",
        "| IoU, background | 0.900 | – | 0.900 | – |",
        "| IoU, newt | 0.500 | – | 0.400 | – |",
        "| pixel accuracy | 0.950 | – | 0.950 | – |",
        "| loss, first iteration | 1.099 | – | 1.099 | – |",
        "| loss, mean of the last 5 % | 0.250 | – | 0.250 | – |",
        "| seconds of training | 51 | – | 60 | – |",
        "| ms per iteration | 86 | – | 100 | – |",
        "| peak memory, MB | 1234 | – | 1234 | – |",
    ]


def test_results_leave_out_what_an_exercise_has_not(fill):
    rows = [row.split(" | ")[0] for row in fill("results lemon").splitlines()[2:]]
    assert rows == ["| loss, first iteration", "| seconds of training"]


def test_what_a_benchmark_measured_is_the_mean_and_the_spread_of_its_runs(fill, repository):
    runs = [{"miou": 0.5, "parameters": 6381}, {"miou": 0.7, "parameters": 6381}]
    rows = ["| --- | --- | --- |", "| as given | 0.600 ± 0.141 | 6,381 |"]
    assets = repository / "Question_semaseg/assets"
    (assets / "ways.json").write_text(json.dumps({"runs": {"as given": runs}}))
    assert fill("measured ways").splitlines() == ["| training | mIoU | parameters |", *rows]
    by_seed = {"code": "0" * 64, "runs": dict(zip("01", runs, strict=True))}
    (assets / "graph_against_cnn.json").write_text(json.dumps({"as given": by_seed}))
    assert fill("measured graph_against_cnn").splitlines() == ["| network | mIoU | parameters |", *rows]
    assert "| 既定値のまま | 0.600 ± 0.141 | 6,381 |" in fill("measured ways", "README.ja.md")


def test_results_of_all_stand_in_the_order_of_the_readme(fill):
    assert fill("results").splitlines() == [
        "| exercise | iterations | PyTorch | TensorFlow | Keras | Chainer |",
        "| --- | --- | --- | --- | --- | --- |",
        "| `zebra` | 60 | – | – | – | 0.500, 200 s |",
        "| `apple` | 600 | 0.700, 51 s | – | 0.650, 60 s | – |",
        "",
        "mIoU on the test pictures and seconds of training, on 2 cores with 24 GiB of memory.",
    ]


def test_japanese_labels_and_the_same_numbers(fill):
    english, japanese = (fill("results apple", name) for name in ("README.md", "README.ja.md"))
    rows = [[line.split(" | ") for line in text.splitlines()] for text in (english, japanese)]
    assert [row[1:] for row in rows[0]] == [row[1:] for row in rows[1]]
    labels = "".join(row[0] for row in rows[1])
    assert all(label in labels for label in ("600 回", "背景", "イモリ", "画素の正解率", "秒数", "メモリー"))
    overview = fill("results", "README.ja.md")
    assert "| 問題 | 回数 |" in overview and "0.700、51 秒" in overview and "2 コア、メモリー 24 GiB" in overview
    assert fill_lessons.ENGLISH.keys() <= fill_lessons.JAPANESE.keys()


def test_all_files_are_filled_and_then_nothing_is_stale(repository, run):
    lesson, benchmarks = repository / "Question_semaseg/README.ja.md", repository / "benchmarks/README.md"
    benchmarks.parent.mkdir()
    lesson.write_text("<!-- new new_pytorch -->\n<!-- end -->\n\n  <!-- results apple -->\n  <!-- end -->", "utf-8")
    benchmarks.write_text("<!-- code old_pytorch gone -->\n<!-- end -->\n\nno marker\n")
    stale = [
        "README.md:8: 'results' is stale: run python tools/fill_lessons.py",
        "Question_semaseg/README.ja.md:1: 'new new_pytorch' is stale: run python tools/fill_lessons.py",
        "Question_semaseg/README.ja.md:4: 'results apple' is stale: run python tools/fill_lessons.py",
        "benchmarks/README.md:1: 'code old_pytorch gone' is stale: run python tools/fill_lessons.py",
    ]
    before = read_all(repository)
    assert run("--check") == (1, stale, [])
    assert read_all(repository) == before
    filled = ["filled README.md", "filled Question_semaseg/README.ja.md", "filled benchmarks/README.md"]
    assert run() == (0, filled, [])
    assert set(read_all(repository)) == set(before)
    for arguments in (["--check"], []):
        after = read_all(repository)
        assert run(*arguments) == (0, [], []) and read_all(repository) == after
    text = lesson.read_text("utf-8")
    assert text.endswith("\n\n  <!-- end -->") and "\n  | mIoU | 0.700 |" in text

    lesson.write_text(text.replace("0.700", "0.900"), "utf-8")  # typed by hand
    numbers = [line for line, _ in fill_lessons.fill(lesson, repository)[1]]
    assert len(numbers) == 1 and run("--check")[0] == 1
    assert run()[0] == 0 and lesson.read_text("utf-8") == text

    answer = repository / "Question_semaseg/answers/old_pytorch.py"
    answer.write_text(OLD.replace("return 1", "return 11"))
    assert run("--check")[1] == stale[3:]


def test_a_marker_in_a_block_of_code_is_an_example(repository, run):
    path = repository / "CONTRIBUTING.md"
    path.write_text("````\n```\n<!-- code no_such -->\n```\n````\n`<!-- wrong -->` and <!-- this -->\n")
    assert run()[1] == ["filled README.md"]
    path.write_text(path.read_text() + "<!-- wrong -->\n")
    assert run()[0] == 2


@pytest.mark.parametrize(
    ("lines", "number", "said"),
    [
        (["<!-- cod old_pytorch gone -->", "<!-- end -->"], 1, "no marker 'cod'"),
        (["<!-- -->"], 1, "no marker ''"),
        (["text", "<!-- end -->"], 2, "no marker 'end'"),
        (["<!-- code older_pytorch gone -->", "<!-- end -->"], 1, "older_pytorch.py"),
        (["<!-- code old_pytorch gone going -->", "<!-- end -->"], 1, "old_pytorch.py has no going"),
        (["<!-- code old_pytorch Network.going -->", "<!-- end -->"], 1, "has no Network.going"),
        (["<!-- code old_pytorch -->", "<!-- end -->"], 1, "name functions"),
        (["<!-- code -->", "<!-- end -->"], 1, "'code' is not how"),
        (["<!-- new old_pytorch gone -->", "<!-- end -->"], 1, "'new old_pytorch gone' is not how"),
        (["<!-- diff old_pytorch new_pytorch -->", "<!-- end -->"], 1, "name functions"),
        (["<!-- diff old_pytorch new_pytorch going -->", "<!-- end -->"], 1, "neither old_pytorch.py nor"),
        (["<!-- diff old_pytorch new_pytorch same -->", "<!-- end -->"], 1, "same is the same"),
        (["<!-- results apple lemon -->", "<!-- end -->"], 1, "'results apple lemon' is not how"),
        (["<!-- results pear -->", "<!-- end -->"], 1, "no pear"),
        (["<!-- results uneven -->", "<!-- end -->"], 1, "not the same iterations"),
        (["<!-- code broken_pytorch gone -->", "<!-- end -->"], 1, "broken_pytorch.py: line 1 is no Python"),
        (["<!-- code old_pytorch gone -->", "text"], 1, "no <!-- end -->"),
        (["<!-- code old_pytorch gone -->", "<!-- new new_pytorch -->", "<!-- end -->"], 1, "no <!-- end -->"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_and_nothing_written(repository, run, lines, number, said):
    (repository / "Question_semaseg/answers/broken_pytorch.py").write_text("def gone(:\n")
    (repository / "Question_semaseg/README.md").write_text("\n".join(lines))
    before = read_all(repository)
    for arguments in ([], ["--check"]):
        status, out, (line,) = run(*arguments)
        assert (status, out) == (2, [])
        assert line.startswith(f"fill_lessons.py: Question_semaseg/README.md:{number}: ") and said in line
    assert read_all(repository) == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "run make lesson-figures"),
        (lambda path: path.write_text("{"), "run make lesson-figures"),
        (lambda path: path.write_text("[]"), "run make lesson-figures"),
        (lambda path: path.write_text('{"answers": {"apple_keras": {"miou": 0.5}}}'), "'iterations'"),
        (lambda path: path.write_text('{"answers": {}, "machine": {"memory_gb": null}}'), "no memory_gb"),
        (lambda path: path.write_text('{"answers": {"pear_keras": {"miou": 0.5}}}'), "README.md has no row for pear"),
    ],
)
def test_results_that_cannot_be_read(repository, run, damage, said):
    damage(repository / "Question_semaseg/assets/results.json")
    status, out, (line,) = run()
    assert (status, out) == (2, []) and line.startswith("fill_lessons.py: README.md:8: ") and said in line
    assert (repository / "README.md").read_text() == README


def test_other_mistakes_are_told_in_one_line(repository, run):
    assert run("--chek") == (2, [], ["fill_lessons.py: unrecognized arguments: --chek"])
    lesson = repository / "Question_semaseg/README.md"
    lesson.write_bytes(b"\xff")
    assert run() == (2, [], [f"fill_lessons.py: {lesson}: not UTF-8: save it as UTF-8"])


def read_all(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_hash_of_an_answer_is_that_of_its_code(repository):
    path = repository / "Question_semaseg/answers/old_pytorch.py"
    code = results.code_hash(path)
    assert len(code) == 64 and int(code, 16)
    path.write_text("# A comment\n" + OLD.replace("The old answer", "It").replace("Return a", "Build a") + "# end\n")
    assert results.code_hash(path) == code
    path.write_text(OLD.replace('"""The old answer."""', "").replace("size = 3\n", "size = (\n        3\n    )"))
    assert results.code_hash(path) == code
    for old, new in (
        ("0.1", "0.2"),
        ('"conv"', '"Conv"'),
        ("x + 1", "x - 1"),
        ("def gone", "def went"),
        ("= 3", "= 3.0"),
    ):
        assert OLD.count(old) == 1
        path.write_text(OLD.replace(old, new))
        assert results.code_hash(path) != code, new
    path.write_text(OLD.replace("    return 1\n", '    return 1\n    "no docstring"\n'))
    assert results.code_hash(path) != code


def test_reading_results(repository):
    path = repository / "Question_semaseg/assets/results.json"
    assert results.read_results(path) == RESULTS
    path.write_text('{"answers": []}')
    with pytest.raises(ValueError):
        results.read_results(path)
