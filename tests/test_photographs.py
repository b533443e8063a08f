"""Each framework's bin_test learns from the original photographs too; skipped where they are not.

`python Dataset/download_newts.py` fetches them, or IMORI_PHOTOGRAPHS names a folder that holds some of them.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ANSWERS, FRAMEWORKS, ROOT, run_python

PHOTOGRAPHS = Path(os.environ.get("IMORI_PHOTOGRAPHS") or ROOT / "Dataset" / "photographs")


@pytest.mark.skipif(not (PHOTOGRAPHS / "train" / "images").is_dir(), reason="no photographs")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_bin_test_learns_from_the_photographs(tmp_path, framework):
    numbers = ["--iterations", 200, "--size", 48, "--batch", 4, "--device", "cpu"]
    result = run_python(
        ANSWERS["bin_test", framework], "--data", PHOTOGRAPHS, "--out", tmp_path / "out", *numbers, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    losses = np.loadtxt(tmp_path / "out" / "loss.csv", delimiter=",", skiprows=1)[:, 1]
    assert losses[-20:].mean() < 0.7 * losses[:20].mean()
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    assert metrics["iou"]["newt"] > 0.15  # calling all of it background would give 0
