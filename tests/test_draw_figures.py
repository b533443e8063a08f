"""tools/draw_figures.py draws what the answers wrote, and runs those that were edited since."""

import os
import sys

import cv2
import draw_figures
import numpy as np
import pytest
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


def test_an_answer_runs_again_only_when_it_was_edited(tmp_path):
    script = tmp_path / "answer.py"
    script.write_text(
        "import pathlib, sys\n"
        "out = pathlib.Path(sys.argv[2])\n"
        "out.mkdir(exist_ok=True)\n"
        "runs = out / 'runs'\n"
        "runs.write_text(runs.read_text() + 'x' if runs.exists() else 'x')\n"
        "(out / 'metrics.json').write_text('{\"miou\": 0.5}')\n"
    )
    out = tmp_path / "out"
    for _ in range(2):
        assert draw_figures.run_answer(script, out) == {"miou": 0.5}
        assert (out / "runs").read_text() == "x"
    later = (out / "metrics.json").stat().st_mtime + 5
    os.utime(script, (later, later))
    draw_figures.run_answer(script, out)
    assert (out / "runs").read_text() == "xx"


def test_an_answer_that_fails_is_told_in_one_line(tmp_path, capsys):
    script = tmp_path / "answer.py"
    script.write_text("import sys\nsys.exit('answer.py: no such folder')\n")
    with pytest.raises(SystemExit) as end:
        draw_figures.run_answer(script, tmp_path / "out")
    assert end.value.code == 2
    assert capsys.readouterr().err == "draw_figures.py: answer.py ended with status 1: answer.py: no such folder\n"


@pytest.mark.parametrize("option", [["--exercises", "bin_loss"], ["--frameworks", "theano"], ["--colour"]])
def test_wrong_options_end_in_one_line(option, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["draw_figures.py", *option])
    with pytest.raises(SystemExit) as end:
        draw_figures.main()
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1 and option[-1] in printed


def test_every_exercise_that_predicts_has_a_figure():
    """Those that are in the lesson lie beside the answers."""
    lesson = (ROOT / "Question_semaseg/README.md").read_text("utf-8")
    for exercise in draw_figures.find_exercises():
        if f"answers/answer_{exercise}.png" in lesson:
            assert (ROOT / f"Question_semaseg/answers/answer_{exercise}.png").stat().st_size > 10_000
