"""The Keras answers run on each backend that Keras has, and give the same losses."""

import csv
import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ANSWERS, ROOT

DOUBLE = ROOT / "tools" / "double_precision.py"  # so that rounding does not part the losses


def run(backend, *command, cwd):
    """Run Python with the command, and Keras on that backend."""
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1"}
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, encoding="utf-8")


@pytest.fixture(scope="module")
def read_losses(newts, tmp_path_factory):
    """Return a function that trains and tests an exercise on a backend, and returns the loss of each iteration."""
    folder, numbers = tmp_path_factory.mktemp("backends"), ["--iterations", 5, "--size", 32, "--batch", 4, "--lr", 0.01]

    @functools.cache
    def read(exercise, backend):
        out = folder / f"{exercise}_{backend}"
        done = run(backend, DOUBLE, ANSWERS[exercise, "keras"], "--data", newts, "--out", out, *numbers, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert f"All is in {out}/" in done.stdout
        with (out / "loss.csv").open(newline="") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    return read


@pytest.mark.parametrize("backend", ("torch", "jax"))
@pytest.mark.parametrize("exercise", ("bin_loss", "segnet"))
def test_every_backend_gives_the_same_losses(read_losses, exercise, backend):
    losses = [read_losses(exercise, name) for name in ("tensorflow", backend)]
    assert len(losses[0]) == 5 and np.ptp(losses[0]) > 0.01
    # On PyTorch's backend Keras 3.15 takes float64 with float32 for float32, so batch norm is off by 1e-7. That makes
    # SegNet's poolings choose other maxima, and gradients go elsewhere, by 0.1 %: its losses part by 4e-4 after one
    # step and 1.4 % after three.
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-5)
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-2 if exercise == "segnet" else 1e-5)


# One answer of each subject: that all begin alike, test_contract.py tests.
@pytest.mark.parametrize("exercise", ("bin_test", "digits_cnn"))
def test_a_backend_that_cannot_be_had_is_told_in_one_line(exercise, tmp_path):
    script = ANSWERS[exercise, "keras"]
    without_jax = (
        "import importlib.util, runpy, sys; find = importlib.util.find_spec; "
        "importlib.util.find_spec = lambda name: find(name) if name != 'jax' else None; "
        "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    for backend, before in (("tensorflw", []), ("jax", ["-c", without_jax])):
        done = run(backend, *before, script, "--out", tmp_path / "out", cwd=tmp_path)
        assert done.returncode == 2 and not list(tmp_path.iterdir())
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"{script.name}: KERAS_BACKEND={backend}: ") and "set it to tensorflow" in line
