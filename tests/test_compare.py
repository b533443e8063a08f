"""tools/compare.py, on fake answers that keep the contract of the real ones and take no time."""

import argparse
import html
import importlib.metadata
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import compare
import cv2
import numpy as np
import pytest
from conftest import ROOT, load
from exercises import answer_path, find_exercise
from matplotlib.figure import Figure

BIN_TEST = find_exercise("bin_test")
DATA = "いもり & newts" if os.name == "nt" else "いもり & newts <1>"  # Windows allows no < in a name
SHIFT = 3e-4
posix_signals = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
# `act` is what a fake does in place of ending well; `shift` is how far its curve lies from the first one's.
FAKE = """
import argparse, json, sys, time
from pathlib import Path
import cv2
import numpy as np

# A comment is no line of code.
framework, act, shift = {framework!r}, {act!r}, {shift!r}
NUMBERS = {{"iterations": (40, range(1, 10**6), "steps")}}
parser = argparse.ArgumentParser()
parser.add_argument("--data", default="Dataset")
for name in ("--out", "--device"):
    parser.add_argument(name)
parser.add_argument("--iterations", type=int, default=40)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
out, data = Path(options.out), Path(options.data)
if act == "missing":
    import there_is_no_such_framework
if act == "wrong":
    sys.exit(print("bin_test.py: --size 5: <b>give</b> & take [red] a size", file=sys.stderr) or 2)
if act == "silent":
    sys.exit(3)
if act == "killed":
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
if act == "late":
    time.sleep(1)
if act == "hungry":
    hoard = np.ones(300_000_000, np.uint8)
length = options.iterations - 3 if act == "short" else options.iterations
rng = np.random.default_rng(options.seed)
losses = 0.7 * np.exp(-np.arange(length) / (length / 3)) + 0.02 * rng.random(length)
losses = losses + shift * np.arange(length) / length * rng.random(length)
if act == "nan":
    losses[4:] = np.nan
for step in range(4):
    print(f"\\r{{step + 1}}/4 loss 0.5", end="", file=sys.stderr, flush=True)
    if act == "slow":
        started = out.parent / "started.part"
        started.write_text(str(__import__("os").getpid()))
        started.rename(out.parent / "started")
        time.sleep(30)
if act == "crash":
    raise RuntimeError("shapes <script>alert('x')</script> & so on")
out.mkdir(parents=True, exist_ok=True)
if act != "nothing":
    rows = [f"{{number}},{{loss}}" for number, loss in enumerate(losses.tolist(), start=1)]
    if act == "cut":
        rows[-1] = rows[-1].split(",")[0]
    (out / "loss.csv").write_text("\\n".join(["iteration,loss", *rows, ""]))
if act == "own":
    for folder, level in (("images", 90), ("seg_images", 255)):
        file = data / "test" / folder / "akahara" / "0000.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".png", np.full((64, 64, 3), level, np.uint8))[1].tobytes())
colours = {{"akahara": (127, 0, 0), "madara": (0, 127, 0)}}
if act not in ("nothing", "pictures"):
    for path in sorted((data / "test" / "images").glob("*/[!.]*")):
        mask = np.zeros((64, 64) if {binary!r} else (64, 64, 3), np.uint8)
        cv2.ellipse(mask, (30 + rng.integers(6), 32), (22, 11), 0, 0, 360,
                    255 if {binary!r} else colours[path.parent.name][::-1], -1)
        file = out / "predictions" / path.parent.name / (path.stem.lower() + ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
if act == "pictures":
    for name in ("train/one", "test/one", "test/two"):
        file = out / "pictures" / (name + ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".png", np.full((90, 240, 3), 200, np.uint8))[1].tobytes())
metrics = {{"answer": Path(__file__).stem, "final_loss": float(losses[-1]), "pixel_accuracy": 0.9512,
            "iou": {{"background": 0.93, "newt": None if act == "nan" else 0.8123}}, "miou": 0.8712 + 10 * shift,
            "options": {{"device": "cpu", "seed": str(options.seed), "iterations": str(options.iterations)}}}}
if act == "pictures":
    for name in ("final_loss", "iou", "miou", "pixel_accuracy", "options"):
        del metrics[name]
if act == "strange":
    metrics["miou"] = "high"
if act != "nothing":
    text = json.dumps(metrics)
    (out / "metrics.json").write_text(text[:50] if act == "torn" else text)
print("test: mIoU 0.8712")
"""


def write_answers(folder, acts, binary=True, exercise="03_bin_test"):
    """Fake answers to one exercise: acts is {framework: what it does}."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (framework, act) in enumerate(acts.items()):
        text = FAKE.format(framework=framework, act=act, shift=SHIFT * number, binary=binary)
        if act == "own":  # makes its images: --data is a file of what they are made of, and has no default
            text = text.replace('"--data", default="Dataset"', '"--data"').replace("(options.data)", "(options.out)")
        (folder / f"{exercise}_{framework}.py").write_text(text, encoding="utf-8")
    return folder


def write_image(path, image):
    """Write (height, width, 3) RGB in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), image[..., ::-1])[1].tobytes())


def write_newts(folder, names=("akahara/akahara_0010", "akahara/akahara_0011", "madara/madara_0010")):
    """Test pictures, the second of them tall, with an ellipse for a newt."""
    rng = np.random.default_rng(1)
    for number, name in enumerate(names):
        height, width = (455, 256) if number == 1 else (144, 256)
        waves = 130 + 60 * np.sin(np.arange(width) / 20 + np.arange(height)[:, None] / (9 + rng.integers(9)))
        image = np.stack([waves, waves * 0.8, waves * 0.5], axis=2).astype(np.uint8)
        mask = np.zeros((height, width, 3), np.uint8)
        colour = (127, 0, 0) if name.startswith("akahara") else (0, 128, 0)
        ellipse = (width // 2, height // 2), (width // 3, height // 6), 0, 0, 360
        cv2.ellipse(mask, *ellipse, colour, -1)
        cv2.ellipse(image, *ellipse, (40, 30, 30), -1)
        write_image(folder / "test" / "images" / f"{name}.jpg", image)
        write_image(folder / "test" / "seg_images" / f"{name}.png", mask)
    return folder


def run_main(tmp_path, acts, *options, binary=True):
    """Compare fake answers on pictures in a folder with a name to trip over: (exit status, folder of the page)."""
    answers, data = write_answers(tmp_path / "answers", acts, binary), tmp_path / DATA
    if not data.exists():
        write_newts(data)
    places = ("--exercise", "bin_test", "--answers", str(answers), "--data", str(data), "--out", str(tmp_path / "out"))
    status = compare.main([*places, "--iterations", "12", "--frameworks", " ".join(acts), *options])
    return status, tmp_path / "out" / "bin_test"


def read_table(page):
    """The table of a page as {label: [text per framework]}."""
    rows = re.findall(r"<tr><th scope=.row.>(.*?)</th>(.*?)</tr>", page)
    return {label: re.findall(r"<td.*?>(.*?)</td>", cells) for label, cells in rows}


def read_curves(out, frameworks):
    return {name: np.loadtxt(out / name / "loss.csv", delimiter=",", skiprows=1)[:, 1] for name in frameworks}


def test_four_answers(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(compare, "find_version", lambda module: {"torch": "9.1+cpu", "jax": "0.7"}.get(module))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    status, out = run_main(tmp_path, dict.fromkeys(compare.FRAMEWORKS, "good"), "--seed", "5", "--device", "cpu")
    assert status == 0
    page, (printed, _) = (out / "index.html").read_text("utf-8"), capfd.readouterr()
    for number, framework in enumerate(compare.FRAMEWORKS, start=1):
        assert f"[{number}/4] {framework}: done in " in printed
    assert "test: mIoU 0.8712" in printed  # what the answers say is seen
    assert max(map(len, printed.split("drawing the page")[1].split("The loss curves")[0].splitlines())) <= 80

    table = read_table(page)
    assert re.findall(r'<th scope="col">(.*?)</th>', page) == list(compare.FRAMEWORKS.values())
    assert table["version"] == ["9.1+cpu", "-", "-", "-"]
    assert table["backend"] == ["-", "-", "jax 0.7", "-"]
    assert table["device"] == ["cpu"] * 4
    assert table["mIoU"] == ["0.8712", "0.8742", "0.8772", "0.8802"]
    assert table["IoU newt"] == ["0.8123"] * 4
    assert table["parameters"] == ["47,553"] * 4
    assert all(0 < float(text) < 60 for text in table["seconds, whole run"])
    assert "ms per iteration" not in table
    for label, texts in table.items():
        row = next(line for line in printed.splitlines() if line.strip().startswith(label))
        assert "".join(row.split()).endswith("".join(texts).replace(" ", ""))

    losses = list(read_curves(out, compare.FRAMEWORKS).values())
    apart = np.max([abs(a - b) / np.maximum(a, b) for a, b in itertools.combinations(losses, 2)], axis=0)
    crossing = 1 + int(np.argmax(apart > 0.001))
    assert 1 < crossing < 12
    lead = f"The loss curves agree to 0.1 % up to iteration {crossing - 1}; at iteration {crossing} the first two, "
    largest = f"Largest difference: {100 * apart.max():.2g} %, at iteration {apart.argmax() + 1} ("
    assert f'<p class="lead">{lead}' in page and lead in printed
    assert largest in page and largest in printed
    assert "shows it" in page and "<code>make parity</code>" in page and "`make parity`" in printed

    assert "<dt>seed</dt><dd>5</dd>" in page and "<dt>iterations</dt><dd>12</dd>" in page
    assert "<dt>exercise</dt><dd>03_bin_test</dd>" in page
    assert html.escape(DATA) in page and "<1>" not in page
    assert page.count("<section>") == 3 and page.count("IoU 0.") == 12
    picture = compare.read_image(out / "comparison.png")
    assert picture.shape[1] == 1350 and picture.std() > 20
    assert not list(out.rglob("*.part"))


def test_the_least_is_marked_where_less_is_better_and_nowhere_else(tmp_path):
    measures = {"version": "1.0", "final_loss": 0.5, "miou": 0.8, "iou": {"newt": 0.7}, "pixel_accuracy": 0.9}
    measures |= {"seconds": 30.0, "peak_memory_mb": 800.0, "parameters": 47553, "lines": 300}
    other = {"version": "2.0", "final_loss": 0.4, "miou": 0.7, "iou": {"newt": 0.6}, "pixel_accuracy": 0.8}
    other |= {"seconds": 20.0, "peak_memory_mb": 900.0, "parameters": 47000, "lines": 300}
    results = [compare.Result("keras", tmp_path, metrics=metrics) for metrics in (measures, other)]
    rows = {label: [marked for _, marked in cells] for label, cells in compare.build_rows(results)}
    assert {label: marks for label, marks in rows.items() if any(marks)} == {
        "seconds, whole run": [False, True],
        "peak memory, MB": [True, False],
    }
    assert {"mIoU", "IoU newt", "final loss", "parameters", "lines of code"} <= rows.keys()


def test_time_and_memory_are_measured_from_outside(tmp_path):
    """In a process of its own, which holds less than the answers: pytest may hold more."""
    answers = write_answers(tmp_path / "answers", {"pytorch": "hungry", "keras": "late", "chainer": "good"})
    places = ["--answers", answers, "--data", write_newts(tmp_path / "data"), "--out", tmp_path / "out"]
    tool = [sys.executable, ROOT / "tools" / "compare.py", "--exercise", "bin_test", "--frameworks"]
    subprocess.run([*tool, "pytorch keras chainer", *places], check=True, capture_output=True)
    table = read_table((tmp_path / "out" / "bin_test" / "index.html").read_text("utf-8"))
    seconds = [float(text) for text in table["seconds, whole run"]]
    assert 1 < seconds[1] < 60 and seconds[1] > seconds[2] + 0.5
    if hasattr(os, "wait4"):
        hungry, *others = (text for text in table["peak memory, MB"])
        assert 300 < float(hungry) < 600 and all(text == "-" or 20 < float(text) < 300 for text in others)


@pytest.mark.skipif(sys.platform != "linux", reason="where a child's count starts with its parent's")
def test_memory_that_the_parent_held_is_not_the_childs(tmp_path):
    (tmp_path / "small.py").write_text("")
    error, measured = compare.run_answer(tmp_path / "small.py", [])
    assert error == "" and measured["peak_memory_mb"] is None and measured["seconds"] > 0


def test_versions_are_those_installed(monkeypatch):
    assert compare.find_version("numpy") == np.__version__
    assert compare.find_version("cv2") == importlib.metadata.version("opencv-python-headless")
    assert compare.find_version("there_is_no_such_framework") is None
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(compare, "find_version", lambda module: {"tensorflow": "2.21.0"}[module])
    assert compare.find_backend() == "tensorflow 2.21.0"


def test_lines_of_code_leave_out_blanks_and_comments(tmp_path):
    write_answers(tmp_path, {"keras": "good"})
    script = tmp_path / "03_bin_test_keras.py"
    with script.open("a", encoding="utf-8") as file:
        file.write("\n    # a comment\n\nprint(1)  # one line\n")
    result = compare.compare_framework(BIN_TEST, "keras", script, tmp_path / "out", ["--data", str(tmp_path)])
    text = script.read_text("utf-8")
    assert result.error == "" and text.count("\n") > result.metrics["lines"]
    assert result.metrics["lines"] == len(re.findall(r"^[ ]*[^ #\n]", text, re.MULTILINE))


def test_a_framework_that_fails_is_shown_and_the_others_compare(tmp_path, capfd):
    acts = {"pytorch": "good", "tensorflow": "crash", "keras": "good", "chainer": "missing"}
    status, out = run_main(tmp_path, acts)
    assert status == 0
    page, (printed, errors) = (out / "index.html").read_text("utf-8"), capfd.readouterr()
    missing = "ModuleNotFoundError: No module named &#39;there_is_no_such_framework&#39;"
    assert f"<strong>Chainer failed.</strong> <code>{missing}</code>" in page
    crash = "RuntimeError: shapes &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; so on"
    assert f"<strong>TensorFlow failed.</strong> <code>{crash}</code>" in page
    assert "<script" not in page
    assert read_table(page)["mIoU"] == ["0.8712", "-", "0.8772", "-"]
    assert "the first two, PyTorch and Keras, are further apart" in page
    assert "In mIoU the two frameworks here lie 0.006 apart" in page
    assert page.count("<figure>") == 3 * 4  # input, truth and two predictions of three pictures
    assert "Chainer failed: ModuleNotFoundError: No module named 'there_is_no_such_framework'" in printed
    assert "Traceback" in errors and "1/4" not in errors  # a log holds the traceback, not the bar


@pytest.mark.parametrize(
    "act, error",
    [
        ("wrong", "bin_test.py: --size 5: <b>give</b> & take [red] a size"),
        ("silent", "exit status 3, without a word"),
        pytest.param("killed", "ended by SIGKILL", marks=posix_signals),
        ("nothing", "ended well, but wrote no metrics.json"),
        ("torn", "ended well, but its results cannot be read: "),
        ("cut", "loss.csv, line 41: '40' is not an iteration and its loss"),
        ("strange", "ended well, but its results cannot be read: "),
    ],
)
def test_every_way_to_fail_says_what_happened(tmp_path, act, error):
    script = write_answers(tmp_path / "answers", {"keras": act}) / "03_bin_test_keras.py"
    result = compare.compare_framework(
        BIN_TEST, "keras", script, tmp_path / "out", ["--data", str(write_newts(tmp_path))]
    )
    assert error in result.error and "\n" not in result.error
    assert result.metrics == {} or compare.build_rows([result])  # what is left of it breaks no table


def test_no_answer_ends_well(tmp_path, capfd):
    run_main(tmp_path, {"pytorch": "good", "keras": "good"})
    status, out = run_main(tmp_path, {"pytorch": "crash", "keras": "missing"})
    assert status == 1
    assert capfd.readouterr().err.splitlines()[-1] == "compare.py: no answer to bin_test ended well"
    page = (out / "index.html").read_text("utf-8")
    assert page.count("failed.</strong>") == 2 and "<table>" not in page and "<img" not in page
    assert not (out / "comparison.png").exists()  # nor last week's curves


def test_earlier_results_do_not_mix_in(tmp_path):
    run_main(tmp_path, {"keras": "good", "chainer": "good"})
    keepsake = tmp_path / "out" / "bin_test" / "keras" / "notes.txt"
    keepsake.write_text("mine")
    status, out = run_main(tmp_path, {"pytorch": "good", "keras": "nothing"})
    page = (out / "index.html").read_text("utf-8")
    assert read_table(page)["mIoU"] == ["0.8712", "-"]
    assert "Chainer" not in page and page.count("<figure>") == 3 * 3
    assert [path.name for path in (out / "keras").iterdir()] == ["notes.txt"]


def test_losses_that_are_no_numbers_and_curves_of_two_lengths(tmp_path):
    status, out = run_main(tmp_path, {"pytorch": "good", "tensorflow": "short", "keras": "nan"})
    page = (out / "index.html").read_text("utf-8")
    assert status == 0
    assert "Keras: the loss is not finite at 8 of 12 iterations, first at 5." in page
    assert "The curves differ in length (PyTorch 12, TensorFlow 9, Keras 12)" in page
    assert read_table(page)["final loss"][2] == "nan" and read_table(page)["IoU newt"][2] == "-"


STEADY = dict.fromkeys(range(1, 21), 0.5)


@pytest.mark.parametrize("crossing", [2, 7, 20])
def test_the_iteration_at_which_curves_part(crossing):
    close, far = 0.5 * 1.0009, 0.5 * 1.0012
    other = STEADY | {2: close} | {crossing: far}
    curves = {"pytorch": STEADY, "keras": STEADY | {3: 0.5 / 1.0009}, "chainer": other}
    sentences = compare.describe_curves(curves)
    assert sentences[0] == (
        f"The loss curves agree to 0.1 % up to iteration {crossing - 1}; at iteration {crossing} the first two, "
        "PyTorch and Chainer, are further apart."
    )
    assert sentences[1] == (
        f"Largest difference: 0.12 %, at iteration {crossing} (0.5 in PyTorch, 0.5006 in Chainer). That is rounding "
        "in single precision, which training amplifies. In double precision the curves stay together over the whole "
        "run: `make parity` shows it."
    )
    assert len(sentences) == 2


def test_curves_that_never_part_or_part_from_the_start_or_are_no_curves():
    close = STEADY | {9: 0.5 * 1.0009}
    sentences = compare.describe_curves({"pytorch": STEADY, "keras": close})
    assert sentences[0] == "The loss curves agree to 0.1 % over the whole run."
    assert sentences[1] == "Largest difference: 0.09 %, at iteration 9 (0.5 in PyTorch, 0.5004 in Keras)."
    assert "`make parity`" in sentences[2]
    sentences = compare.describe_curves({"pytorch": STEADY, "keras": STEADY | {1: 0.6}})
    assert sentences == [
        "Already the losses of iteration 1 are more than 0.1 % apart, which rounding does not explain.",
        "Largest difference: 17 %, at iteration 1 (0.5 in PyTorch, 0.6 in Keras).",
    ]
    (first, _) = compare.describe_curves({"pytorch": STEADY, "keras": STEADY | {1: 0.6}}, pretrained=True)
    assert "which rounding has parted" in first and "does not explain" not in first
    assert compare.describe_curves({"pytorch": STEADY}) == []
    assert compare.describe_curves({"pytorch": STEADY, "keras": dict(STEADY)}) == [
        "No difference between any two loss curves, to the last digit written."
    ]
    assert "nothing to compare" in compare.describe_curves({"pytorch": {1: np.nan}, "keras": {1: 2.0}})[0]


def test_differences_are_the_largest_of_any_two_relative_to_the_larger_loss():
    curves = {"pytorch": {1: 1.0, 2: 2.0, 4: np.inf}, "keras": {1: 1.0, 2: 2.5, 3: 1.0, 4: 1.0}, "chainer": {2: 1.5}}
    assert compare.find_differences(curves) == {
        1: (0.0, "pytorch", "keras"),
        2: (pytest.approx(1 - 1.5 / 2.5), "keras", "chainer"),
    }


@pytest.mark.parametrize("crossing", [2, 7, 19])
def test_the_chart_of_differences_is_not_one_iteration_off(crossing):
    other = {iteration: 0.5 * (1 + (2e-3 if iteration >= crossing else 5e-4)) for iteration in STEADY} | {1: 0.5}
    axes = Figure().add_subplot()
    compare.draw_differences(axes, {"pytorch": STEADY, "tensorflow": dict(STEADY), "keras": other}, dark=0)
    curve, limit, mark = axes.lines
    assert list(curve.get_xdata()) == list(range(1, 21)) and axes.get_yscale() == "log"
    values = np.array(curve.get_ydata())
    assert np.isnan(values[0]) and values[1] == pytest.approx(0.002 if crossing == 2 else 0.0005, rel=0.01)
    assert list(curve.get_xdata()[values > 0.001])[0] == crossing
    assert set(limit.get_ydata()) == {0.001} and set(mark.get_xdata()) == {crossing}
    assert [text.get_text() for text in axes.texts] == [f"over 0.1 % at iteration {crossing}"]
    bottom, top = axes.get_ylim()
    assert bottom < 5e-4 and top > 0.002
    assert axes.yaxis.get_major_formatter()(1e-3, 0) == "0.1 %"


def test_curves_are_told_apart_by_width_and_dashes_too():
    assert compare.LINES.keys() == compare.FRAMEWORKS.keys()
    assert (
        len({style[:2] for style in compare.LINES.values()}) == len({style[1] for style in compare.LINES.values()}) == 4
    )


SPREAD = {"framework": "pytorch", "miou": [0.78, 0.79, 0.77], "seeds": [0, 1, 2], "iterations": 12}


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, "Over seeds 0 to 2, PyTorch reached an mIoU of 0.770 to 0.790; the two frameworks here lie 0.006 "
             "apart, no further than the seeds."),
        ({"miou": [0.78, 0.784, 0.78], "seeds": [0, 3, 5], "iterations": 700},
         "Over seeds 0, 3, 5, PyTorch reached an mIoU of 0.780 to 0.784 (in 700 iterations; here 12); the two "
         "frameworks here lie 0.006 apart, further than the seeds."),
        ({"miou": [0.78]}, None),
        ({"miou": "high"}, None),
        ({"framework": "<b>"}, None),
        (None, None),
    ],
)  # fmt: skip
def test_the_spread_over_seeds_is_shown_where_it_is_known(tmp_path, monkeypatch, change, expected):
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    shutil.copy(ROOT / "exercises.toml", tmp_path)
    results = tmp_path / "Question_semaseg" / "assets" / "results.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps({"spread": {} if change is None else {"bin_test": SPREAD | change}}))
    results = [compare.Result("keras", tmp_path, metrics={"miou": miou}) for miou in (0.771, None, 0.777)]
    (tmp_path / "Dataset").mkdir()
    (tmp_path / "my newts").mkdir()
    own, other = (argparse.Namespace(iterations=12, data=tmp_path / name) for name in ("Dataset", "my newts"))
    apart = "In mIoU the two frameworks here lie 0.006 apart."
    unknown = apart + " How much it varies with the seed alone, `python benchmarks/seeds.py --exercises bin_test {}` "
    unknown += "measures."
    assert compare.describe_results(BIN_TEST, results, own) == [
        expected or unknown.format("--frameworks pytorch --keep")
    ]
    quote = '"' if os.name == "nt" else "'"
    # Of other images no spread is known, and what makes its images has no data folder to measure it on.
    assert compare.describe_results(BIN_TEST, results, other) == [unknown.format(f"--data {quote}my newts{quote}")]
    made = argparse.Namespace(iterations=12, data=None)
    assert compare.describe_results(find_exercise("graph_conv"), results, made) == [apart]
    assert compare.describe_results(BIN_TEST, results[:2], own) == []
    same = compare.describe_results(BIN_TEST, [results[0], results[0]], other)
    assert same[0].startswith("In mIoU the two frameworks here lie less than 0.001 apart.")


def test_one_result_is_compared_with_nothing(tmp_path):
    _, out = run_main(tmp_path, {"keras": "good"})
    page = (out / "index.html").read_text("utf-8")
    assert 'class="lead"' not in page and "apart" not in page.split("</header>")[0] and page.count("<picture") == 1


def test_overlap_and_brighten():
    truth = np.zeros((4, 8, 3), np.uint8)
    truth[:, :4] = 128, 0, 0
    prediction = np.zeros((4, 4, 3), np.uint8)
    prediction[:2, :2] = 127, 0, 0  # half of the newt
    prediction[2:, :2] = 0, 127, 0  # the other half as the other newt
    prediction[:1, 2:] = 127, 0, 0  # a quarter too much
    assert compare.overlap(prediction, truth) == pytest.approx(4 / 10)
    grey = np.where(truth.max(axis=2) > 0, 255, 0).astype(np.uint8)
    assert compare.overlap(grey[:, ::2], grey) == 1
    assert np.isnan(compare.overlap(prediction * 0, truth * 0))
    assert compare.brighten(truth)[0, [0, 7]].tolist() == [[255, 64, 64], [0, 0, 0]]
    assert compare.brighten(grey)[0, [0, 7]].tolist() == [[255, 255, 255], [0, 0, 0]]


def test_truth_is_shown_as_the_predictions_are(tmp_path):
    data = write_newts(tmp_path / "data")
    (data / "test" / "images" / "akahara" / ".hidden.jpg").write_bytes(b"")
    (data / "test" / "images" / "madara" / "madara_0010.jpg").rename(
        data / "test" / "images" / "madara" / "MADARA_0010.JPG"
    )
    for binary, colour in ((True, [255, 255, 255]), (False, [64, 255, 64])):
        script = write_answers(tmp_path / str(binary), {"keras": "good"}, binary) / "03_bin_test_keras.py"
        result = compare.compare_framework(BIN_TEST, "keras", script, tmp_path / f"out {binary}", ["--data", str(data)])
        if binary:  # an answer may name its pictures from the data folder on
            predictions = result.out / "predictions"
            predictions.rename(tmp_path / "test")
            predictions.mkdir()
            (tmp_path / "test").rename(predictions / "test")
        grid, number = compare.make_grid([result], data)
        assert number == 3 and grid[2][0] == "madara/madara_0010"
        photo, truth, prediction = grid[2][1]
        assert photo["ratio"] == truth["ratio"] == prediction["ratio"] == 256 / 144
        assert prediction["image"].shape == (64, 64, 3)  # stretched where it is shown
        assert truth["image"][72, 128].tolist() == prediction["image"][32, 32].tolist() == colour


def test_each_framework_has_its_own_predictions_and_masks_are_not_blended(tmp_path):
    size, red, other = compare.LONGEST_SIDE * 5 // 4, [127, 0, 0], [0, 127, 0]
    stripes = np.zeros((size, size, 3), np.uint8)
    stripes[:, ::7] = red
    write_image(tmp_path / "test" / "images" / "one.png", np.full((size, size, 3), 90, np.uint8))
    write_image(tmp_path / "test" / "seg_images" / "one.png", stripes)
    write_image(tmp_path / "pytorch" / "predictions" / "one.png", stripes)
    write_image(tmp_path / "keras" / "predictions" / "one.png", np.full((9, 9, 3), other, np.uint8))
    results = [compare.Result(name, tmp_path / name) for name in ("pytorch", "keras")]
    grid, _ = compare.make_grid(results, tmp_path)
    _, truth, *cells = grid[0][1]
    assert [cell["label"] for cell in cells] == ["PyTorch", "Keras"]
    bright = compare.brighten(np.uint8([[red, other, [0, 0, 0]]]))[0].tolist()
    for cell, colours in ((truth, bright[::2]), (cells[0], bright[::2]), (cells[1], bright[1:2])):
        assert sorted(np.unique(cell["image"].reshape(-1, 3), axis=0).tolist()) == sorted(colours)
    drawn = cv2.imdecode(np.frombuffer(compare.draw_comparison("", [], {}, grid), np.uint8), cv2.IMREAD_COLOR)
    drawn = drawn[..., ::-1].reshape(-1, 3).astype(int)
    reddish = drawn[drawn[:, 0] - drawn[:, 1] > 20]
    assert len(reddish) > 5000 and (np.abs(reddish - bright[0]).max(axis=1) < 8).mean() > 0.95


def test_at_most_sixteen_pictures(tmp_path):
    names = [f"akahara/akahara_{number:04}" for number in range(40)]
    for name in names:
        write_image(tmp_path / "test" / "images" / f"{name}.png", np.full((8, 16, 3), 90, np.uint8))
        write_image(tmp_path / "keras" / "predictions" / f"{name}.png", np.full((8, 8, 3), 127, np.uint8))
    grid, number = compare.make_grid([compare.Result("keras", tmp_path / "keras")], tmp_path)
    assert number == 40 and len(grid) == 16
    assert (grid[0][0], grid[-1][0]) == (names[0], names[-1])
    assert grid[0][1][1]["uri"] == ""  # without a mask, a place left free


def test_an_exercise_without_predictions_shows_the_answers_own_pictures(tmp_path):
    status, out = run_main(tmp_path, {"pytorch": "pictures", "keras": "pictures"})
    page = (out / "index.html").read_text("utf-8")
    assert status == 0 and (out / "comparison.png").exists()
    assert 'alt="test/one: PyTorch"' in page and page.count('class="plot"') == 4
    assert "mIoU" not in page and "final loss" not in page


WRONG = {
    ("--exercise", "12_unetlike"): "compare.py: --exercise 12_unetlike: no such exercise: give unetlike",
    ("--exercise", "unet_like"): "compare.py: --exercise unet_like: no such exercise: give unetlike",
    ("--answers", "no/such"): "compare.py: --answers: there is no 03_bin_test_keras.py, ",
    ("--exercise", "nosuch"): "compare.py: --exercise nosuch: no such exercise: give ",
    ("--frameworks", "pytorh keras"): "compare.py: --frameworks: there is no 'pytorh'; there is "
    "pytorch, tensorflow, keras, chainer",
    ("--frameworks", " "): "compare.py: --frameworks: there is no ''; there is pytorch, tensorflow, keras, chainer",
    ("--iterations", "0"): "compare.py: --iterations: '0' is not a whole number from 1 on",
    ("--iterations", "ten"): "compare.py: --iterations: 'ten' is not a whole number from 1 on",
    ("--seed", "-1"): "compare.py: --seed: '-1' is not a whole number from 0 on",
    ("--data", "no/such"): f"compare.py: --data: no such folder: {Path('no/such')}",
    ("--device", "gpu"): "compare.py: --device: invalid choice: 'gpu' (choose from ",
    ("--iteration", "5"): "compare.py: unrecognized arguments: --iteration 5",
}


@pytest.mark.parametrize("options", WRONG, ids=" ".join)
def test_wrong_options_end_in_one_line_before_anything_runs(tmp_path, capfd, monkeypatch, options):
    monkeypatch.setattr(sys, "argv", ["compare.py"])
    with pytest.raises(SystemExit) as end:
        run_main(tmp_path, {"keras": "good"}, *options)
    printed, errors = capfd.readouterr()
    assert end.value.code == 2 and printed == ""
    assert errors.startswith(WRONG[options]) and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_answer_of_one_framework(tmp_path):
    answers = write_answers(tmp_path / "answers", {"pytorch": "good"})
    status = compare.main(
        ["--exercise", "bin_test", "--answers", str(answers), "--data", str(write_newts(tmp_path))]
        + ["--out", str(tmp_path / "out")]
    )
    page = (tmp_path / "out" / "bin_test" / "index.html").read_text("utf-8")
    assert status == 0 and page.count("there is no such answer") == 3


def test_later_subjects_come_in_without_a_change(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    entries = (ROOT / "exercises.toml").read_text("utf-8")
    entries += """
[[subject]]
name = "other"
folder = "Question_other"
title_en = "Others"
title_ja = "他"
framework_free = []
[[exercise]]
name = "other_task"
subject = "other"
number = 1
trains = true
predicts = true
parameters = 1234
en = "another"
ja = "他"
"""
    (tmp_path / "exercises.toml").write_text(entries, "utf-8")
    write_answers(tmp_path / "Question_semaseg" / "answers", {"keras": "good"})
    write_answers(tmp_path / "Question_other" / "answers", {"chainer": "good"}, exercise="01_other_task")
    data = write_newts(tmp_path / "Dataset")
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path.parent))
    for name in ("other_task", "01_other_task"):
        arguments = ["--exercise", name, "--frameworks", "chainer", "--data", str(data), "--out", str(tmp_path / name)]
        assert compare.main(arguments) == 0
        page = (tmp_path / name / "other_task" / "index.html").read_text("utf-8")
        assert "<h1>other_task</h1>" in page and read_table(page)["parameters"] == ["1,234"]
        assert str(tmp_path.parent) not in page  # no path of this machine
        assert "--data Dataset" in page


@pytest.mark.skipif(sys.platform != "linux", reason="on Windows and macOS names are Unicode")
def test_names_that_are_not_utf_8_and_terminals_without_the_letters(tmp_path):
    name = os.fsdecode("イモリ".encode("cp932"))
    data = write_newts(tmp_path / "いもり", [f"akahara/{name}", "madara/madara_0010"])
    answers = write_answers(tmp_path / "answers", {"pytorch": "good", "keras": "good"})
    for encoding in ("ascii", "cp932"):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        environment.pop("HOME", None)
        done = subprocess.run(
            [sys.executable, ROOT / "tools" / "compare.py", "--exercise", "bin_test", "--answers", answers]
            + ["--data", data, "--out", tmp_path / f"out_{name}", "--iterations", "2"],
            env=environment,
            capture_output=True,
        )
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
        page = (tmp_path / f"out_{name}" / "bin_test" / "index.html").read_text("utf-8")
        assert "madara/madara_0010" in page and "akahara/\\udc83" in page


def test_answers_that_make_their_own_images(tmp_path, capsys):
    answers = write_answers(tmp_path / "answers", {"pytorch": "own", "keras": "own"})
    places = ["--exercise", "bin_test", "--answers", str(answers), "--out", str(tmp_path / "out")]
    assert compare.main([*places, "--frameworks", "pytorch keras"]) == 0
    page = (tmp_path / "out" / "bin_test" / "index.html").read_text("utf-8")
    assert "<dt>data</dt><dd>the answers&#39; own</dd>" in page
    for cell in ("input", "truth", "PyTorch", "Keras"):
        assert f'alt="akahara/0000: {cell}"' in page
    old = tmp_path / "out/bin_test/keras/test/images/akahara/old.png"
    shutil.copy(old.with_name("0000.png"), old)
    assert compare.main([*places, "--frameworks", "keras"]) == 0 and not old.exists()
    capsys.readouterr()
    for wrong in (tmp_path, tmp_path / "no_such.npz"):
        with pytest.raises(SystemExit) as end:
            compare.main([*places, "--data", str(wrong)])
        printed = capsys.readouterr().err
        assert end.value.code == 2 and printed == f"compare.py: --data: no such file: {wrong}\n"
    (tmp_path / "digits.npz").touch()
    assert compare.main([*places, "--data", str(tmp_path / "digits.npz"), "--frameworks", "keras"]) == 0
    page = (tmp_path / "out" / "bin_test" / "index.html").read_text("utf-8")
    assert "digits.npz</dd>" in page and 'alt="akahara/0000: truth"' in page


@posix_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_answer_and_leaves_the_last_page(tmp_path, number):
    _, out = run_main(tmp_path, {"keras": "good"})
    before = (out / "index.html").read_bytes()
    write_answers(tmp_path / "answers", {"keras": "slow"})
    places = [
        "--exercise",
        "bin_test",
        "--answers",
        tmp_path / "answers",
        "--data",
        tmp_path / DATA,
        "--out",
        tmp_path / "out",
    ]
    process = subprocess.Popen(
        [sys.executable, ROOT / "tools" / "compare.py", *places],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 20
    while not (out / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int((out / "started").read_text())
    process.send_signal(number)
    errors = process.communicate(timeout=15)[1].decode()
    assert process.returncode == 130
    assert errors == f"compare.py: interrupted; {out / 'index.html'} is still that of the last comparison\n"
    assert (out / "index.html").read_bytes() == before
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_a_terminal_sees_the_bar_as_it_moves(tmp_path):
    answers, data = write_answers(tmp_path, {"keras": "slow"}), write_newts(tmp_path)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, ROOT / "tools" / "compare.py", "--exercise", "bin_test"]
        + ["--answers", answers, "--data", data, "--out", tmp_path / "o"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        assert os.read(ours, 100) == b"\r1/4 loss 0.5"  # while the answer sleeps on
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=15)
        os.close(ours)


def test_page_in_a_browser(tmp_path, browser):
    """On a phone and on a desk, light and dark: all is there, nothing is fetched, nothing juts out."""
    acts = {"pytorch": "good", "tensorflow": "good", "keras": "good", "chainer": "crash"}
    _, out = run_main(tmp_path, acts, binary=False)
    shots = {}
    for width in (360, 1200):
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page, troubles, requests = context.new_page(), [], []
            page.on("console", lambda message, troubles=troubles: troubles.append(message.text))
            page.on("pageerror", lambda error, troubles=troubles: troubles.append(str(error)))
            page.on("requestfailed", lambda request, troubles=troubles: troubles.append(request.url[:200]))
            page.on("request", lambda request, requests=requests: requests.append(request.url[:200]))
            page.goto((out / "index.html").as_uri())
            widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
            assert len(widths) == 2 + 3 * 5 and all(widths)
            assert all(page.evaluate("[...document.images].map(image => image.alt)"))
            ways = page.evaluate("[...document.images].map(i => [i.className, getComputedStyle(i).imageRendering])")
            assert {way for name, way in ways if name == "mask"} == {"pixelated"}
            assert page.evaluate("document.documentElement.scrollWidth") == width
            scroll = page.evaluate("(box => [box.scrollWidth, box.clientWidth])(document.querySelector('.scroll'))")
            assert (scroll[0] > scroll[1]) == (width == 360)  # only the table does, and only on the phone
            chart = page.evaluate("document.querySelector('.panel img').currentSrc")
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            shots[width, scheme] = page.screenshot(path=tmp_path / f"{width} {scheme}.png", full_page=True)
            assert troubles == []
            assert [url for url in requests if not url.startswith("data:")] == [(out / "index.html").as_uri()]
            shots[width, scheme] = (chart, ground)
            context.close()
    for width in (360, 1200):
        light, dark = shots[width, "light"], shots[width, "dark"]
        assert light[0] != dark[0] and light[1] != dark[1]
    # A tall picture is shown tall, its prediction too.
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.goto((out / "index.html").as_uri())
    sizes = page.locator("section:nth-of-type(2) img").evaluate_all(
        "images => images.map(image => image.clientHeight / image.clientWidth)"
    )
    assert sizes == pytest.approx([455 / 256] * 5, rel=0.02)


def test_iterations_are_the_answers_own_up_to_a_limit(tmp_path):
    for exercise in ("unetlike", "10_unet", "bin_dataset"):
        options = compare.parse_options(["--exercise", exercise, "--out", str(tmp_path), "--frameworks", "pytorch"])
        script = options.scripts["pytorch"]
        assert compare.default_number(script, "iterations") == load(script).NUMBERS["iterations"][0]
        assert options.iterations == min(load(script).NUMBERS["iterations"][0], compare.MOST_ITERATIONS)
    longer = write_answers(tmp_path, {"keras": "good", "chainer": "good"}) / "03_bin_test_keras.py"
    longer.write_text(longer.read_text().replace("(40, ", "(90000, "))
    places = ["--exercise", "bin_test", "--answers", str(tmp_path), "--out", str(tmp_path)]
    assert compare.parse_options([*places, "--frameworks", "keras"]).iterations == compare.MOST_ITERATIONS
    assert compare.parse_options([*places, "--frameworks", "keras chainer"]).iterations == 40
    assert compare.parse_options([*places, "--iterations", "90001"]).iterations == 90001


@pytest.mark.parametrize("exercise, folder", [("bin_dataset", True), ("segnet", True), ("graph_conv", False)])
def test_which_answers_read_a_data_folder(exercise, folder):
    for framework in compare.FRAMEWORKS:
        assert compare.reads_folder(answer_path(exercise, framework)) == folder


def test_unetlike_in_all_frameworks_unless_told(tmp_path):
    options = compare.parse_options(["--out", str(tmp_path)])
    assert [script.name for script in options.scripts.values()] == [
        f"11_unetlike_{name}.py" for name in compare.FRAMEWORKS
    ]


@pytest.mark.parametrize("given, pretraining", [([], None), (["--iterations", "3"], 3)])
def test_fewer_iterations_are_fewer_of_both_trainings(tmp_path, given, pretraining):
    arguments = ["--out", str(tmp_path), *given]
    options = compare.parse_options(["--exercise", "deeplab_finetune", "--frameworks", "pytorch", *arguments])
    assert options.pretraining == pretraining
    options = compare.parse_options(["--exercise", "unetlike", "--frameworks", "pytorch", *arguments])
    assert options.pretraining is None and options.iterations == (pretraining or compare.MOST_ITERATIONS)


def test_what_an_answer_reads_by_default_is_made_before_it_runs_and_once(tmp_path, monkeypatch):
    (tmp_path / "earlier.py").write_text(
        "from pathlib import Path\n"
        "out = Path('outputs/earlier')\n"
        "out.mkdir(parents=True)\n"
        "(out / 'metrics.json').write_text('{}')\n"
    )
    (tmp_path / "answer.py").write_text(
        "import sys\nfrom pathlib import Path\n"
        "Path('outputs/earlier/metrics.json').read_text()\n"
        "Path(sys.argv[-1], 'metrics.json').write_text('{}')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "list_earlier", lambda *_: [Path("before/first.py"), Path("before/earlier.py")])
    run = [BIN_TEST, "pytorch", tmp_path / "answer.py", tmp_path / "out"]
    assert compare.compare_framework(*run, ["--data", "elsewhere"]).error  # its own data are not there: none are made
    for _ in range(2):  # the second time it would fail to make the folder again
        assert compare.compare_framework(*run, []).error == ""
