"""The Keras answers run on each backend that Keras has, and give the same losses."""

import csv
import functools
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import SCRIPTS

KERAS = [script for script in SCRIPTS if script.stem in ("bin_test_keras", "segnet_keras")]


# Runs an answer without its slow start, so that the weights move and gradients count, and in double precision, so
# that rounding does not.
AT_FULL_RATE = """
import importlib.util, sys
specification = importlib.util.spec_from_file_location("answer", sys.argv[1])
answer = importlib.util.module_from_spec(specification)
specification.loader.exec_module(answer)
sys.argv[:2] = sys.argv[1:2]
answer.WARM_UP = 1
answer.keras.config.set_floatx("float64")
answer.main()
"""


@functools.cache
def read_losses(script, backend, data, out):
    """Train and test on a backend, and return the loss of each iteration."""
    numbers = ["--iterations", "5", "--size", "32", "--batch", "4", "--lr", "0.01"]
    command = [sys.executable, "-c", AT_FULL_RATE, script, "--data", data, "--out", out, *numbers]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(list(map(str, command)), env=environment, cwd=out.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Written to {out}" in done.stdout
    with (out / "loss.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("backend", ("torch", "jax"))
@pytest.mark.parametrize("script", KERAS, ids=lambda script: script.stem)
def test_every_backend_gives_the_same_losses(newts, tmp_path_factory, script, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    folder = tmp_path_factory.getbasetemp()
    losses = [read_losses(script, name, newts, folder / f"{script.stem}_{name}") for name in ("tensorflow", backend)]
    assert len(losses[0]) == 5 and np.ptp(losses[0]) > 0.01
    # SegNet parts by 4e-4 after one step on PyTorch's backend, and 1.4 % after three: batch norms that differ by 1e-7
    # choose other maxima in the poolings, and the gradients go elsewhere.
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-5)
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-2 if "segnet" in script.stem else 1e-5)


def test_the_scripts_are_there():
    assert len(KERAS) == 2
