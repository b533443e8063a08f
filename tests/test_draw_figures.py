"""tools/draw_figures.py draws what the answers wrote, and runs those that were edited since."""

import os
import subprocess
import sys

import cv2
import draw_figures
import exercises
import numpy as np
import pytest
import results
from conftest import ROOT


def write_prediction(out, name, colour):
    path = out / "predictions" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((64, 64, 3), colour, np.uint8))[1].tobytes())


def test_a_figure_shows_each_prediction(tmp_path):
    outs = {"pytorch": tmp_path / "a", "chainer": tmp_path / "b"}
    for out, colour in zip(outs.values(), ((0, 0, 127), (0, 127, 0)), strict=True):  # blue-green-red
        for name in draw_figures.PICTURES:
            write_prediction(out, name, colour)
    draw_figures.draw_exercise(tmp_path / "figure.png", outs, dict.fromkeys(outs, {"miou": 0.5}))
    figure = cv2.imread(str(tmp_path / "figure.png"), cv2.IMREAD_COLOR_RGB)
    width = figure.shape[1] // 4
    red, green = ((figure == colour).all(axis=2) for colour in ((254, 0, 0), (0, 254, 0)))
    assert red[:, 2 * width : 3 * width].mean() > 0.3 and red[:, 3 * width :].sum() == 0
    assert green[:, 3 * width :].mean() > 0.3 and green[:, 2 * width : 3 * width].sum() == 0


ANSWER = """
import pathlib, sys
out = pathlib.Path(sys.argv[2])
out.mkdir(exist_ok=True)
runs = out / "runs"
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
(out / "metrics.json").write_text('{"answer": "11_unetlike_keras", "miou": 0.5, "options": {"seed": "3"}}')
(out / "loss.csv").write_text("iteration,loss\\n" + "".join(f"{i},{1 / i}\\n" for i in range(1, 41)))
"""
PRINT = {"weights": 1.0, "parameters": 7, "logits": 0.1, "rates": 2.0, "losses": [1, 0.9, 0.8, 0.7, 0.6]}


def test_an_answer_runs_again_only_when_its_numbers_would_change(tmp_path):
    script, out = tmp_path / "answer.py", tmp_path / "out"
    script.write_text(ANSWER)
    other = PRINT | {"losses": [1, 0.9, 0.8, 0.7, 0.61]}
    for fingerprint, more, runs in (
        (PRINT, [], "x"),
        (PRINT | {"weights": 1 + 1e-12}, [], "x"),
        (other, [], "xx"),
        (other, ["--iterations", "4"], "xxx"),
    ):
        numbers = draw_figures.run_answer(script, out, fingerprint, None, *more)
        assert (out / "runs").read_text() == runs
        assert numbers["fingerprint"]["losses"] == fingerprint["losses"]
        assert (numbers["parameters"], numbers["iterations"], numbers["seed"], numbers["miou"]) == (7, 40, 3, 0.5)
        assert numbers["first_loss"] == 1
        assert numbers["last_loss"] == pytest.approx((1 / 39 + 1 / 40) / 2)  # a twentieth of 40 iterations
        assert numbers["seconds"] > 0 and not numbers.keys() & {"answer", "options"}


def test_time_and_memory_are_those_of_the_child():
    """Measured by a small process: pytest may hold more than the child, and then nothing is known of the child."""
    code = "import time; block = bytearray(200_000_000); time.sleep(0.5)"
    program = f"import sys, results; print(*results.run_measured([sys.executable, '-c', {code!r}])[2:])"
    printed = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT / "tools", text=True)
    seconds, memory = printed.split()
    assert 0.5 < float(seconds) < 60
    assert memory == "None" if sys.platform == "win32" else 200 < float(memory) < 300
    status, errors, _, _ = results.run_measured([sys.executable, "-c", "import sys; sys.exit('no')"])
    assert (status, errors.splitlines()) == (1, ["no"])


def test_an_answer_runs_again_when_the_newts_or_the_requirements_were_edited(tmp_path, monkeypatch):
    newt, requirements = tmp_path / "Dataset/train/images/newt.jpg", tmp_path / "requirements.txt"
    newt.parent.mkdir(parents=True)
    script, out = tmp_path / "answer.py", tmp_path / "out"
    script.write_text(ANSWER)
    monkeypatch.setattr(draw_figures, "REPOSITORY", tmp_path)
    for inputs, runs in ((("a", "1"), "x"), (("a", "1"), "x"), (("b", "1"), "xx"), (("b", "2"), "xxx")):
        newt.write_text(inputs[0])
        requirements.write_text(inputs[1])
        draw_figures.inputs_hash.cache_clear()
        draw_figures.run_answer(script, out, PRINT, None)
        assert (out / "runs").read_text() == runs
    draw_figures.inputs_hash.cache_clear()


def test_results_of_other_answers_stay_and_those_of_none_go(tmp_path):
    path = tmp_path / "assets/results.json"
    draw_figures.keep_results(path, {"unet_chainer": {"miou": 0.1}, "unet_theano": {"miou": 0.2}}, 1)
    spread = {"unetlike": {"miou": [0.7, 0.8]}}
    results.write_results(path, results.read_results(path) | {"spread": spread})
    draw_figures.keep_results(path, {"unet_keras": {"miou": 0.3}}, 1)
    kept = results.read_results(path)
    assert kept["answers"] == {"unet_chainer": {"miou": 0.1}, "unet_keras": {"miou": 0.3}}
    assert kept["machine"]["cores"] == os.cpu_count() and kept["spread"] == spread


def test_an_answer_that_fails_is_told_in_one_line(tmp_path, capsys):
    script = tmp_path / "answer.py"
    script.write_text("import sys\nsys.exit('answer.py: no such folder')\n")
    with pytest.raises(SystemExit) as end:
        draw_figures.run_answer(script, tmp_path / "out", PRINT, None)
    assert end.value.code == 2
    assert capsys.readouterr().err == "draw_figures.py: answer.py ended with status 1: answer.py: no such folder\n"


@pytest.mark.parametrize(
    "option", [["--exercises", "bin_loss"], ["--frameworks", "theano"], ["--jobs", "0"], ["--colour"]]
)
def test_wrong_options_end_in_one_line(option, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["draw_figures.py", *option])
    with pytest.raises(SystemExit) as end:
        draw_figures.main()
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1 and option[-1] in printed


def test_every_exercise_that_predicts_has_a_figure():
    for exercise in exercises.read_exercises():
        folder = ROOT / exercises.find_subject(exercise.subject).folder
        if f"answers/answer_{exercise.name}.png" in (folder / "README.md").read_text("utf-8"):
            assert (folder / f"answers/answer_{exercise.name}.png").stat().st_size > 10_000
        else:
            assert not exercise.predicts
