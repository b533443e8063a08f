"""Each exercise that trains does learn: a short run on the bundled newts, and one with wrong masks for comparison."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import EXERCISES, ROOT, pytorch

RECIPE = {"iterations": 120, "size": 32, "batch": 8, "lr": 0.1, "augment": "flips"}
# What differs for the deep ones, which learn more slowly: they are made narrow, and segnet sees the same images again.
RECIPES = {
    "unet": {"iterations": 150, "size": 236, "batch": 2},
    "segnet": {"iterations": 200, "lr": 0.2, "augment": "none"},
}
NARROW = {
    "unet": {"CHANNELS": (8, 16, 32, 64, 128)},
    "segnet": {
        "ENCODER": ((3, 16, 16), (16, 32, 32), (32, 64, 64, 64), (64, 128, 128, 128), (128, 128, 128, 128)),
        "DECODER": ((128, 128, 128, 128), (128, 128, 128, 64), (64, 64, 64, 32), (32, 32, 16), (16, 16, 64)),
    },
}


# The mean loss of the last 20 steps, and the mIoU on the test images: a bound between what was measured with the right
# masks and with wrong ones, each over three seeds and given here.
BOUNDS = {
    "bin_loss": (0.42, None),  # 0.334 to 0.352 and 0.478 to 0.492
    "bin_test": (0.42, 0.54),  # the same losses; 0.610 to 0.627 and 0.446 to 0.479
    "semaseg_loss": (0.5, None),  # 0.360 to 0.391 and 0.634 to 0.671
    "semaseg_test": (0.5, 0.44),  # the same losses; 0.572 to 0.579 and 0.245 to 0.294
    "nearest": (0.5, 0.44),  # 0.343 to 0.377 and 0.596 to 0.638; 0.574 to 0.597 and 0.262 to 0.316
    "transposeconv": (0.5, 0.44),  # 0.348 to 0.379 and 0.608 to 0.641; 0.571 to 0.594 and 0.269 to 0.303
    "concat": (0.5, 0.44),  # 0.337 to 0.368 and 0.630 to 0.653; 0.578 to 0.586 and 0.249 to 0.316
    "unet": (0.68, 0.27),  # 0.591 and 0.760; 0.303 and 0.243, of one seed
    "unetlike": (0.48, 0.44),  # 0.350 to 0.387 and 0.574 to 0.597; 0.561 to 0.604 and 0.260 to 0.309
    "segnet": (0.52, 0.39),  # 0.410 and 0.637; 0.509 and 0.278, of one seed
}


def learn(answer, options, parts, permutation, seed=0):
    """Return the mean loss of the last 20 steps, and the mIoU of an answer that tests, else None.

    parts are images and masks for training and for testing; permutation says which image gets whose mask in training.
    """
    (images, targets), (test_images, test_targets) = parts
    rng = np.random.default_rng(seed)
    network = answer.build_network(rng, options)
    loss = np.mean(answer.train(network, images, targets[permutation], options, rng)[-20:])
    if not hasattr(answer, "predict"):
        return loss, None
    logits = answer.predict(network, test_images, options)
    predictions = logits.argmax(axis=3) if logits.shape[3] > 1 else (logits[..., 0] > 0).astype(int)
    return loss, answer.measure(predictions, test_targets)["miou"]


def test_each_exercise_that_trains_is_here():
    trained = [name for name, exercise in EXERCISES.items() if exercise.trains and exercise.subject == "semaseg"]
    assert list(BOUNDS) == trained


@pytest.mark.parametrize("exercise", BOUNDS)
def test_it_learns_from_the_right_masks_only(exercise, monkeypatch):
    answer = pytorch(exercise)
    for name, value in NARROW.get(exercise, {}).items():
        monkeypatch.setattr(answer, name, value)
    options = SimpleNamespace(**RECIPE | RECIPES.get(exercise, {}), device="cpu", upsampling="nearest", poolings=1)
    parts = [answer.load_newts(ROOT / "Dataset" / part, options.size)[1:] for part in ("train", "test")]
    right = np.arange(len(parts[0][0]))
    wrong = np.random.default_rng(0).permutation(right)
    found = [learn(answer, options, parts, permutation) for permutation in (right, wrong)]
    print(f"\n{exercise}: loss and mIoU {found[0]}, with wrong masks {found[1]}")
    (loss, miou), (wrong_loss, wrong_miou) = found
    loss_bound, miou_bound = BOUNDS[exercise]
    assert loss_bound is None or loss < loss_bound < wrong_loss
    assert miou_bound is None or miou > miou_bound > wrong_miou
