"""Print every number that a trap of the lesson names, one a line, so that anyone can measure it again.

    python benchmarks/traps.py [--exercises "bin_loss unetlike"]

Nothing is trained: small arrays, the bundled newts and untrained networks show it all, within a minute on a CPU.
"""

import argparse
import functools
import logging
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

np.sctypes = {"int": [np.int8, np.int16, np.int32, np.int64]}  # Chainer reads this name, which NumPy 2 dropped
warnings.simplefilter("ignore")  # Chainer's last release predates what its dependencies now warn of
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import tensorflow as tf  # noqa: E402
finally:
    os.dup2(stderr, 2)
import chainer  # noqa: E402
import keras  # noqa: E402
import torch  # noqa: E402
from chainer import functions, links  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
import exercises  # noqa: E402

FRAMEWORKS = ("PyTorch", "TensorFlow", "Keras", "Chainer")


@functools.cache
def answer(exercise):
    """Return the PyTorch answer to an exercise as a module."""
    return exercises.load_answer(exercises.answer_path(exercise, "pytorch"))


def network_of(exercise, size=64):
    """Return the untrained network of an exercise in PyTorch, its weights drawn with seed 0."""
    options = SimpleNamespace(device="cpu", size=size, upsampling="nearest", poolings=1)
    return answer(exercise).build_network(np.random.default_rng(0), options)


def newts(exercise, part="train", size=64):
    """Return names, images (pictures, size, size, 3) and targets (pictures, size, size) of the bundled newts."""
    return answer(exercise).load_newts(REPOSITORY / "Dataset" / part, size)


def mask_paths(species):
    """Return the masks of one species that there are to train on."""
    return sorted((REPOSITORY / "Dataset/train/seg_images" / species).iterdir())


def show(label, *values):
    """Print a label and what was measured; with four values, one for each framework."""
    shown = [value if isinstance(value, str) else np.array2string(np.asarray(value), precision=4) for value in values]
    if len(values) == 4:
        shown = [f"{name} {value}" for name, value in zip(FRAMEWORKS, shown, strict=True)]
    print(f"  {label}: {', '.join(' '.join(value.split()) for value in shown)}")


def attempt(call):
    """Return what call returns, or the name of the error that it raises."""
    try:
        return call()
    except Exception as error:  # whatever a framework raises is what is to be shown
        return type(error).__name__


def image(array):
    """Return an array (height, width) as the images of PyTorch, TensorFlow, Keras and Chainer, of one channel."""
    channels_second = np.float32(array)[None, None]
    channels_last = np.float32(array)[None, ..., None]
    return torch.from_numpy(channels_second), tf.constant(channels_last), tf.constant(channels_last), channels_second


def plane(tensor):
    """Return the first picture's first channel of a tensor of any framework."""
    array = np.asarray(getattr(tensor, "array", tensor.detach() if isinstance(tensor, torch.Tensor) else tensor))
    channels_last = not isinstance(tensor, torch.Tensor | chainer.Variable)
    return array[0, ..., 0] if channels_last else array[0, 0]


def size_of(tensor):
    """Return the height of a tensor of any framework, or the error's name in its place."""
    return tensor if isinstance(tensor, str) else len(plane(tensor))


def bin_dataset():
    row = np.arange(12, dtype=np.uint8)[None].repeat(12, 0)
    for name in ("INTER_NEAREST", "INTER_NEAREST_EXACT"):
        show(f"of columns 0 to 11, {name} keeps for 4", cv2.resize(row, (4, 4), interpolation=getattr(cv2, name))[0])
    names, _, exact = newts("bin_dataset")
    module = answer("bin_dataset")
    masks = [module.read_mask(REPOSITORY / "Dataset/train/seg_images" / f"{name}.png") for name in names]
    plain = np.stack([cv2.resize(mask, (64, 64), interpolation=cv2.INTER_NEAREST) for mask in masks])
    share = np.mean([cv2.resize(np.float32(mask), (64, 64), interpolation=cv2.INTER_AREA) % 1 > 0 for mask in masks])
    iou = (plain & exact).sum() / (plain | exact).sum()
    show("newt pixels of INTER_NEAREST against INTER_NEAREST_EXACT, IoU", iou)
    show("share of pixels that averaging leaves between 0 and 1", share)
    path = mask_paths("akahara")[0]
    for order, flag in (("red-green-blue", cv2.IMREAD_COLOR_RGB), ("as OpenCV does by default", cv2.IMREAD_COLOR)):
        show(f"colour of akahara, read {order}", np.unique(cv2.imread(str(path), flag).reshape(-1, 3), axis=0)[1])
    batch = np.arange(8 * 64 * 64 * 3).reshape(8, 64, 64, 3)
    wrong = batch.reshape(8, 3, 64, 64) == batch.transpose(0, 3, 1, 2)
    show("share of values that reshape puts where transpose would", f"{wrong.mean():.3%}")
    show("type of uint8 / 127.5 - 1", str((np.uint8([0]) / 127.5 - 1).dtype))
    double = np.zeros((1, 8, 8, 3))
    convolutions = (
        lambda: nn.Conv2d(3, 4, 3)(torch.from_numpy(double.transpose(0, 3, 1, 2))),
        lambda: tf.nn.conv2d(tf.constant(double), tf.zeros((3, 3, 3, 4)), 1, "VALID"),
        lambda: keras.layers.Conv2D(4, 3)(double).dtype,
        lambda: links.Convolution2D(3, 4, 3)(double.transpose(0, 3, 1, 2)).dtype.name,
    )
    show("a convolution of such float64 pictures", *map(attempt, convolutions))


def bin_loss():
    sigmoids = {
        "PyTorch": lambda x: torch.sigmoid(torch.from_numpy(x)).numpy(),
        "TensorFlow": lambda x: tf.sigmoid(x).numpy(),
        "Keras": lambda x: np.asarray(keras.ops.sigmoid(x)),
        "Chainer": lambda x: functions.sigmoid(x).array,
    }
    for sign, wanted in ((1, 1), (-1, 0)):
        logits = sign * np.arange(200, dtype=np.float32)
        found = [logits[np.argmax(sigmoid(logits) == wanted)] for sigmoid in sigmoids.values()]
        show(f"first whole logit whose sigmoid is exactly {wanted} in float32", *found)
    logits, targets = np.float32([[-200.0, 200.0]]), np.float32([[1.0, 0.0]])
    with np.errstate(divide="ignore"):
        p = 1 / (1 + np.exp(-np.float64(logits)))
        plain = -np.mean(np.log(np.where(targets == 1, p, 1 - p)))
    show("loss of logits -200 on newt and 200 on background, as it is written", plain)
    from_logits = (
        functional.binary_cross_entropy_with_logits(*map(torch.from_numpy, (logits, targets))),
        tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)),
        keras.ops.mean(keras.losses.binary_crossentropy(targets, logits, from_logits=True)),
        functions.sigmoid_cross_entropy(logits, targets.astype(int)).array,
    )
    show("the same from logits", *from_logits)
    probabilities = np.float32([[0.0, 1.0]])
    from_probabilities = (
        functional.binary_cross_entropy(*map(torch.from_numpy, (probabilities, targets))),
        "has none",
        keras.ops.mean(keras.losses.binary_crossentropy(targets, probabilities)),
        "has none",
    )
    show("the same from probabilities 0 and 1", *from_probabilities)
    logits = torch.from_numpy(logits).requires_grad_()
    functional.binary_cross_entropy(torch.sigmoid(logits), torch.from_numpy(targets)).backward()
    variable = tf.Variable(logits.detach().numpy())
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(keras.losses.binary_crossentropy(targets, keras.ops.sigmoid(variable)))
    show("PyTorch, these after its sigmoid: gradient by the logits", logits.grad)
    show("Keras, these after its sigmoid: loss, gradient by the logits", float(loss), tape.gradient(loss, variable))

    logits, targets = np.zeros((8, 64, 64, 1), np.float32), np.zeros((8, 64, 64, 1), np.float32)
    shapes = (
        functional.binary_cross_entropy_with_logits(*map(torch.from_numpy, (logits, targets))).shape,
        tf.nn.sigmoid_cross_entropy_with_logits(targets, logits).shape,
        keras.losses.binary_crossentropy(targets, logits, from_logits=True).shape,
        functions.sigmoid_cross_entropy(logits, targets.astype(int)).shape,
    )
    show("shape of the loss of a batch (8, 64, 64, 1)", *(str(tuple(shape)) for shape in shapes))
    show("the sum of that loss over its mean", 8 * 64 * 64)
    for kind in ("uint8", "float32"):
        kinds = targets.astype(kind)
        losses = (
            lambda kinds=kinds: functional.binary_cross_entropy_with_logits(*map(torch.from_numpy, (logits, kinds))),
            lambda kinds=kinds: tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.constant(kinds), logits)),
            lambda kinds=kinds: keras.ops.mean(keras.losses.binary_crossentropy(kinds, logits, from_logits=True)),
            lambda kinds=kinds: functions.sigmoid_cross_entropy(logits, kinds).array,
        )
        show(f"that loss with targets of {kind}", *map(attempt, losses))

    norms = nn.BatchNorm2d(1), keras.layers.BatchNormalization(), links.BatchNormalization(1)
    show("batch norm's epsilon by default", norms[0].eps, "you say it", norms[1].epsilon, norms[2].eps)
    kept = 1 - norms[0].momentum, "you write it", norms[1].momentum, norms[2].decay
    show("share of the old running average kept by default", *kept)
    show("what is left of the start after 100 steps, keeping 0.9 and 0.99", 0.9**100, 0.99**100)
    for deviation in (1.0, 0.1, 0.01):
        x = deviation * torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        stretched = [functional.batch_norm(x, None, None, training=True, eps=eps).std().item() for eps in (1e-5, 1e-3)]
        show(f"deviation after batch norm of {deviation} before, epsilon 1e-5 and 1e-3", *stretched)
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 1)).astype(np.float32)
    norms[0](torch.from_numpy(x.transpose(0, 3, 1, 2)))
    norms[1](x, training=True)
    norms[2](x.transpose(0, 3, 1, 2))
    running = (
        (norms[0].running_var - 0.9) / 0.1,
        "as you write it",
        (np.asarray(norms[1].moving_variance) - 0.99) / 0.01,
        (norms[2].avg_var - 0.9) / 0.1,
    )
    show(
        "variance that one step adds to the running one, over that of its 32 numbers",
        *(value if isinstance(value, str) else float(value[0]) / x.var() for value in running),
    )
    _, _, fused = tf.compat.v1.nn.fused_batch_norm(x, [1.0], [0.0])
    show(
        "the same from tf.nn.moments and from fused_batch_norm",
        tf.nn.moments(x, (0, 1, 2))[1] / x.var(),
        fused / x.var(),
    )
    chainer_mode = str(chainer.config.train)
    show(
        "in training mode by default",
        str(nn.BatchNorm2d(1).training),
        "you pass it on",
        str(keras_trains()),
        chainer_mode,
    )

    moved = [[], [], []]
    weight = nn.Parameter(torch.zeros(1))
    pytorch = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    variable = keras.Variable([0.0])
    of_keras = keras.optimizers.SGD(0.1, momentum=0.9)
    of_keras.build([variable])
    link = links.Parameter(np.zeros(1, np.float32))
    of_chainer = chainer.optimizers.MomentumSGD(0.1, momentum=0.9).setup(link)
    for rate in (0.1, 0.1, 0.01):
        before = weight.item(), float(variable.numpy()[0]), float(link.W.array[0])
        weight.grad, link.W.grad = torch.ones(1), np.ones(1, np.float32)
        pytorch.param_groups[0]["lr"] = of_chainer.lr = rate
        of_keras.learning_rate = rate
        pytorch.step()
        of_keras.apply([keras.ops.ones(1)])
        of_chainer.update()
        after = weight.item(), float(variable.numpy()[0]), float(link.W.array[0])
        for moves, start, end in zip(moved, before, after, strict=True):
            moves.append(start - end)
    shown = [np.float32(moves) for moves in moved]
    show("steps at gradient 1, momentum 0.9, rates 0.1, 0.1, 0.01", shown[0], "as you write it", *shown[1:])
    weight = nn.Parameter(torch.zeros(1))
    pytorch = torch.optim.SGD([weight], lr=0.1)
    for momentum in (0.0, 0.9):
        before = weight.item()
        weight.grad = torch.ones(1)
        pytorch.param_groups[0]["momentum"] = momentum
        pytorch.step()
    show("PyTorch's second step at gradient 1, rate 0.1, momentum 0 and then 0.9", before - weight.item())
    summed = torch.ones(1, requires_grad=True), None, tf.Variable([1.0]), chainer.Parameter(np.ones(1, np.float32))
    for _ in range(2):
        (1 * summed[0]).sum().backward()
        functions.sum(1 * summed[3]).backward()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(1 * summed[2])
        of_tape = tape.gradient(loss, summed[2])
    show("gradient after two backward passes, each 1", summed[0].grad, of_tape, "as its backend", summed[3].grad)
    x = inputs = keras.Input((None, None, 3))
    for _ in range(6):
        x = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
        x = keras.layers.BatchNormalization()(x)
    network = keras.Model(inputs, keras.layers.Conv2D(1, 1)(x))
    trained = sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)
    show("parameters that training sets, Keras's count_params()", trained, network.count_params())
    draw_kernels = (
        lambda: nn.Conv2d(32, 32, 3).weight.detach().numpy(),
        lambda: np.asarray(keras.initializers.get(keras.layers.Conv2D(32, 3).kernel_initializer)((3, 3, 32, 32))),
        lambda: links.Convolution2D(32, 32, 3).W.array,
    )
    kernels = [np.array([draw() for _ in range(32)]) for draw in draw_kernels]  # of one, the third digit is chance
    for label, numbers in (
        ("deviation of a new kernel 3 x 3, 32 to 32", [float(kernel.std()) for kernel in kernels]),
        ("its largest value over that: 1.73 if uniform", [float(abs(k).max() / k.std()) for k in kernels]),
    ):
        show(label, numbers[0], "you draw it", *numbers[1:])
    show("the deviation by He, normal", float(np.sqrt(2 / (32 * 9))))


def keras_trains():
    """Return whether a Keras layer that is called without training= acts as in training."""
    norm = keras.layers.BatchNormalization()
    norm.build((None, 1))
    before = float(norm.moving_mean.numpy()[0])
    norm(np.full((4, 1), 5.0, np.float32))
    return float(norm.moving_mean.numpy()[0]) != before


def bin_test():
    _, images, targets = newts("bin_test", "test")
    measure = answer("bin_test").measure
    show(
        "all test pixels called background: accuracy, IoU of newt, mIoU",
        *(lambda m: (m["pixel_accuracy"], m["iou"]["newt"], m["miou"]))(measure(0 * targets, targets)),
    )
    network = network_of("bin_test")
    batch = answer("bin_test").to_tensor(images[:8], "cpu")
    with torch.no_grad():
        for mode in (True, False):
            network.train(mode)
            for layer in network:
                if isinstance(layer, nn.BatchNorm2d):
                    layer.momentum = 0.0  # measuring must not move the averages
            apart = (network(batch)[:1] - network(batch[:1])).abs().max().item()
            show(
                f"logits of a picture alone and in a batch of 8 differ by, {'training' if mode else 'inference'}", apart
            )
    show("sigmoid of 0.5", float(torch.sigmoid(torch.tensor(0.5))))
    eight = np.array([4.0, 4.0, *6 * [-1.0]])
    show("eight logits, two of 4 and six of -1: their mean", eight.mean())
    show("the mean of their sigmoids", np.mean(1 / (1 + np.exp(-eight))))
    probabilities, truth = np.float32([0.9, 0.8, 0.2, 0.1]), np.float32([1, 1, 0, 0])
    mean_iou, binary_iou = keras.metrics.MeanIoU(2), keras.metrics.BinaryIoU([0, 1], threshold=0.5)
    show(
        "perfect probabilities: Keras's MeanIoU and BinaryIoU",
        float(mean_iou(truth, probabilities)),
        float(binary_iou(truth, probabilities)),
    )
    for pixels in (1, 3):
        shifted = np.roll(targets, pixels, axis=2)
        each = [measure(shifted[i], targets[i])["miou"] for i in range(len(targets))]
        found = measure(shifted, targets)["miou"], float(np.mean(each))
        show(f"truth shifted by {pixels}: mIoU over all pixels together, mean of the pictures'", *found)


def semaseg_dataset():
    module = answer("semaseg_dataset")
    masks = [module.read_mask(path) for path in mask_paths("madara")]
    kept = [mask for mask in masks if not (mask == 1).any()]
    for name in ("INTER_NEAREST_EXACT", "INTER_LINEAR", "INTER_AREA"):
        small = np.stack([cv2.resize(mask, (64, 64), interpolation=getattr(cv2, name)) for mask in kept])
        show(
            f"akahara in {len(kept)} pictures of madara alone, resized by {name}",
            f"{(small == 1).sum()} pixels, {(small == 1).sum() / (small == 2).sum():.1%} of the newt's",
        )
    path = mask_paths("akahara")[0]
    mask = cv2.imread(str(path))
    smeared = cv2.imdecode(cv2.imencode(".jpg", mask)[1], cv2.IMREAD_COLOR)
    colours = [len(np.unique(array.reshape(-1, 3), axis=0)) for array in (mask, smeared)]
    show(f"colours in {path.stem} as PNG, as JPEG", *colours)
    grey = [
        np.unique(cv2.imread(str(mask_paths(species)[0]), cv2.IMREAD_GRAYSCALE))[1] for species in ("akahara", "madara")
    ]
    show("grey value of akahara, madara where a mask is read as grey", *grey)


def semaseg_loss():
    _, _, targets = newts("semaseg_loss")
    targets = targets[:8].astype(np.int64)
    perfect = 10 * np.eye(3, dtype=np.float32)[targets]  # (batch, height, width, class)
    second = torch.from_numpy(perfect).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(targets)
    show(
        "loss of logits 10 at the truth, 0 else: no reshape, classes last, not moved",
        *(
            functional.cross_entropy(*pair).item()
            for pair in (
                (second, labels),
                (second.permute(0, 2, 3, 1).reshape(-1, 3), labels.reshape(-1)),
                (second.reshape(-1, 3), labels.reshape(-1)),
            )
        ),
    )
    one = torch.tensor([[10.0, 0.0, 0.0]])
    show(
        "loss of logits 10, 0, 0, and after a softmax too many",
        *(functional.cross_entropy(x, torch.tensor([0])).item() for x in (one, one.softmax(1))),
    )
    logits = tf.Variable([[-1.0, 2.0, 3.0]])
    for flag in (True, False):
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(np.zeros(1, int), logits, from_logits=flag)
        slopes = tape.gradient(loss, logits)
        show(f"Keras, logits -1, 2, 3 of class 0, from_logits={flag}: loss, gradient", float(loss[0]), slopes[0])
    four = np.float32([[[[1.0]], [[0.0]], [[0.0]]]])  # (batch, class, height, width)
    show(
        "logits (1, 3, 1, 1) as they are",
        *map(
            attempt,
            (
                lambda: functional.cross_entropy(
                    torch.from_numpy(four), torch.zeros((1, 1, 1), dtype=torch.long)
                ).item(),
                lambda: float(tf.squeeze(tf.nn.sparse_softmax_cross_entropy_with_logits([[[0]]], four))),
                lambda: float(
                    np.squeeze(
                        keras.losses.sparse_categorical_crossentropy(np.zeros((1, 1, 1)), four, from_logits=True)
                    )
                ),
                lambda: float(functions.softmax_cross_entropy(four, np.zeros((1, 1, 1), np.int32)).array),
            ),
        ),
    )
    for kind in (torch.uint8, torch.int64):
        show(
            f"PyTorch, logits of four dimensions with targets of {str(kind).removeprefix('torch.')}",
            attempt(lambda kind=kind: functional.cross_entropy(torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1).to(kind))),
        )
    for layout in (torch.contiguous_format, torch.channels_last):
        moved = torch.zeros(8, 3, 64, 64).contiguous(memory_format=layout).permute(0, 2, 3, 1)
        shapes = [attempt(lambda way=way: str(tuple(way(-1, 3).shape))) for way in (moved.view, moved.reshape)]
        show(f"PyTorch, (8, 3, 64, 64) in {layout}, permuted: view, reshape", *shapes)
    rows = np.float32([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    void = np.int64([0, 255])
    of_class = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    of_function = keras.losses.sparse_categorical_crossentropy(void, rows, from_logits=True, ignore_class=255)
    show(
        "mean loss of two pixels, one of class 255, which is to be ignored",
        functional.cross_entropy(torch.from_numpy(rows), torch.from_numpy(void), ignore_index=255).item(),
        "has no option",
        float(of_class(void, rows)),
        float(functions.softmax_cross_entropy(rows, void.astype(np.int32), ignore_label=255).array),
    )
    show("the same by Keras's function and ops.mean", float(keras.ops.mean(of_function)))
    targets = [(f"mean loss of two pixels, one of class {bad}", np.int64([0, bad])) for bad in (-100, -1, 3, 255)]
    targets += [(f"that loss with targets of {kind}", np.zeros(2, kind)) for kind in ("uint8", "int32", "int64")]
    for name, kinds in targets:
        # Chainer refuses int64, which the last of these shows, whatever the classes.
        for_chainer = kinds.astype(np.int32) if kinds.any() else kinds
        attempts = (
            lambda kinds=kinds: functional.cross_entropy(torch.from_numpy(rows), torch.from_numpy(kinds)).item(),
            lambda kinds=kinds: float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(kinds, rows))),
            lambda kinds=kinds: float(
                np.mean(keras.losses.sparse_categorical_crossentropy(kinds, rows, from_logits=True))
            ),
            lambda kinds=for_chainer: float(functions.softmax_cross_entropy(rows, kinds).array),
        )
        show(name, *map(attempt, attempts))
    show("loss of three equal logits, log 3", float(np.log(3)))
    kinds, weights = np.int32([0, 1]), np.float32([1, 3, 1])
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(kinds, rows)
    of_keras = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    show(
        "equal logits, one pixel of class 0 with weight 1, one of class 1 with weight 3",
        functional.cross_entropy(*map(torch.from_numpy, (rows, kinds.astype(int), weights))).item(),
        float(tf.reduce_mean(each * weights[kinds])),
        float(of_keras(kinds, rows, sample_weight=weights[kinds])),
        float(functions.softmax_cross_entropy(rows, kinds, class_weight=weights).array),
    )


def semaseg_test():
    akahara = np.uint8([[[127, 0, 0]]])
    read = cv2.imdecode(cv2.imencode(".png", akahara)[1], cv2.IMREAD_COLOR_RGB)
    show("akahara (127, 0, 0) written by OpenCV without turning the channels round, read", read[0, 0])
    show("class of logits 1, 1, 0 and of 0, 1, 1", np.argmax([1, 1, 0]), np.argmax([0, 1, 1]))
    show("shape of arg max over the last axis of (8, 3, 64, 64)", str(np.zeros((8, 3, 64, 64)).argmax(-1).shape))
    logits = np.float32(np.random.default_rng(0).standard_normal((64, 64, 3)))
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    show("pixels of 4096 whose class the softmax changes", int((logits.argmax(-1) != softmax.argmax(-1)).sum()))
    truth = np.uint8([[0, 0, 1, 1]])
    metric = keras.metrics.MeanIoU(3)
    ours = answer("semaseg_test").measure(truth, truth)["miou"]
    show(
        "mIoU of a perfect prediction without madara: answer, Keras, with 0 / 0 as 0",
        ours,
        float(metric(truth, truth)),
        2 / 3,
    )
    truth = np.uint8([[0] * 90 + [1] * 10])
    for name, wrong in (("one madara pixel where there is none", 1), ("none", 0)):
        guess = truth.copy()
        guess[0, :wrong] = 2
        show(f"mIoU of 90 background, 10 akahara, {name}", answer("semaseg_test").measure(guess, truth)["miou"])
    for ious in np.array([[0.92, 0.10], [0.5, 0.5]]):
        show(f"classes of IoU {ious}: mIoU, mean Dice", ious.mean(), np.mean(2 * ious / (1 + ious)))


def nearest():
    x, aligned = image([[0, 1, 2]] * 3), (6, 6)
    show("Chainer's resize_images by default with NumPy 2", attempt(lambda: functions.resize_images(x[3], aligned)))
    np.float = float  # Chainer reads this name there; give it back to see what it would do
    resized = (
        functional.interpolate(x[0], scale_factor=2, mode="bilinear"),
        tf.image.resize(x[1], aligned),
        keras.layers.UpSampling2D(2, interpolation="bilinear")(x[2]),
        functions.resize_images(x[3], aligned),
    )
    show("0 1 2 bilinear to 6, by default", *(plane(tensor)[0] for tensor in resized))
    show(
        "the same with corners aligned in PyTorch",
        plane(functional.interpolate(x[0], scale_factor=2, mode="bilinear", align_corners=True))[0],
    )
    show(
        "the same with align_corners=False in Chainer",
        plane(functions.resize_images(x[3], aligned, align_corners=False))[0],
    )
    del np.float
    show("the same by tf.compat.v1.image.resize_bilinear", plane(tf.compat.v1.image.resize_bilinear(x[1], aligned))[0])
    for kind in ("uint8", "float16", "float64"):
        made = [tf.image.resize(tf.cast(x[1], kind), aligned, method).dtype.name for method in ("bilinear", "nearest")]
        show(f"tf.image.resize makes of {kind}, bilinear and nearest", *made)
    odd = image(np.zeros((65, 65)))
    pooled = (
        functional.max_pool2d(odd[0], 2),
        tf.nn.max_pool2d(odd[1], 2, 2, "VALID"),
        keras.layers.MaxPooling2D(2)(odd[2]),
        functions.max_pooling_2d(odd[3], 2),
    )
    show("size of 65 after max pooling 2", *map(size_of, pooled))
    show(
        "the same, TensorFlow with SAME, Chainer with cover_all=False",
        size_of(tf.nn.max_pool2d(odd[1], 2, 2, "SAME")),
        size_of(functions.max_pooling_2d(odd[3], 2, cover_all=False)),
    )
    even = (
        functions.unpooling_2d(image(np.zeros((32, 32)))[3], 2),
        functions.unpooling_2d(image(np.zeros((32, 32)))[3], 2, cover_all=False),
    )
    show("size of 32 after Chainer's unpooling_2d of 2 by default, with cover_all=False", *map(size_of, even))
    show(
        "products of a convolution 3 x 3, 32 to 32, at 64 x 64 and at 32 x 32",
        9 * 32 * 32 * 64 * 64,
        9 * 32 * 32 * 32 * 32,
    )
    for exercise in ("semaseg_test", "nearest"):
        show(f"pixels that one logit of {exercise} depends on, across: least, most", *extent(exercise, 64))


def extent(exercise, size):
    """Return how many columns of the input a logit depends on: the least and the most of 16 pixels side by side."""
    options = SimpleNamespace(device="cpu", size=size, upsampling="nearest")
    network = answer(exercise).build_network(np.random.default_rng(0), options).eval()
    inputs = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = network(inputs)
    middle, seen = logits.shape[2] // 2, []
    for column in range(middle, middle + 16, 5 if exercise == "unetlike" else 1):  # all 16 would take long
        (slopes,) = torch.autograd.grad(logits[0, 0, middle, column], inputs, retain_graph=True)
        touched = slopes[0].abs().sum((0, 1)).nonzero().flatten()
        seen.append(int(touched[-1] - touched[0]) + 1)
    return min(seen), max(seen)


def transposeconv():
    layer = keras.layers.Conv2DTranspose(5, 2, strides=2)
    layer.build((None, 4, 4, 3))
    shapes = (
        nn.ConvTranspose2d(3, 5, 2).weight.shape,
        "(2, 2, 5, 3)",
        layer.kernel.shape,
        links.Deconvolution2D(3, 5, 2).W.shape,
    )
    tf.nn.conv2d_transpose(tf.zeros((1, 4, 4, 3)), tf.zeros((2, 2, 5, 3)), (1, 8, 8, 5), 2)  # raises for any other
    show(
        "kernel 2 x 2 of a transposed convolution of 3 channels to 5",
        *(v if isinstance(v, str) else str(tuple(v)) for v in shapes),
    )
    layer = keras.layers.Conv2D(5, 2)
    layer.build((None, 4, 4, 3))
    tf.nn.conv2d(tf.zeros((1, 4, 4, 3)), tf.zeros((2, 2, 3, 5)), 1, "VALID")
    shapes = nn.Conv2d(3, 5, 2).weight.shape, "(2, 2, 3, 5)", layer.kernel.shape, links.Convolution2D(3, 5, 2).W.shape
    show("the same of a convolution", *(v if isinstance(v, str) else str(tuple(v)) for v in shapes))
    for size, numbers in ((2, [[1, 2], [3, 4]]), (3, np.ones((3, 3)))):
        kernel = np.float32(numbers)
        x = image([[1]] if size == 2 else np.ones((3, 3)))
        keras_layer = keras.layers.Conv2DTranspose(1, size, strides=2, use_bias=False)
        keras_layer.build((None, None, None, 1))
        keras_layer.kernel.assign(kernel[..., None, None])
        out = size_of(functional.conv_transpose2d(x[0], torch.from_numpy(kernel[None, None]), stride=2))
        made = (
            functional.conv_transpose2d(x[0], torch.from_numpy(kernel[None, None]), stride=2),
            tf.nn.conv2d_transpose(x[1], kernel[..., None, None], (1, out, out, 1), 2, "VALID"),
            keras_layer(x[2]),
            functions.deconvolution_2d(x[3], kernel[None, None], stride=2),
        )
        if size == 2:
            show("1 through the kernel 1 2 / 3 4", *(plane(tensor).ravel() for tensor in made))
        else:
            show("size of 3 after a kernel of 3, stride 2, no padding", *map(size_of, made))
            same = keras.layers.Conv2DTranspose(1, 3, strides=2, padding="same")(x[2])
            padded = functional.conv_transpose2d(x[0], torch.ones(1, 1, 3, 3), stride=2, padding=1, output_padding=1)
            show(
                'the same, Keras with padding="same", PyTorch with padding=1, output_padding=1',
                size_of(same),
                size_of(padded),
            )
            show("row 1 of ones through 3 x 3 ones, stride 2", plane(made[0])[1])
    x = image(np.ones((3, 3)))[0]
    show(
        "row 1 of ones through 2 x 2 ones, stride 2",
        plane(functional.conv_transpose2d(x, torch.ones(1, 1, 2, 2), stride=2))[1],
    )
    numbers, kernel = torch.tensor([[1.0, 10.0], [100.0, 1000.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    between = torch.zeros(1, 1, 5, 5)
    between[..., 1::2, 1::2] = numbers
    ways = {
        "1 10 / 100 1000 through the kernel 1 2 / 3 4, stride 2": functional.conv_transpose2d(
            numbers[None, None], kernel, stride=2
        ),
        "the same by a convolution: zeros between and around, the kernel turned": functional.conv2d(
            between, kernel.flip(2, 3)
        ),
    }
    for label, made in ways.items():
        show(label, made.flatten().numpy())
    rng = np.random.default_rng(0)
    kernel, features = (torch.from_numpy(np.float32(rng.standard_normal(s))) for s in ((32, 32, 2, 2), (1, 32, 4, 4)))
    right, wrong = (functional.conv_transpose2d(features, k, stride=2) for k in (kernel, kernel.transpose(0, 1)))
    show(
        "32 to 32 channels, kernel turned round: largest difference, deviation of the right values",
        (right - wrong).abs().max().item(),
        right.std().item(),
    )
    rng = np.random.default_rng(0)
    kernel, features = (torch.from_numpy(rng.standard_normal(s)) for s in ((32, 32, 2, 2), (8, 32, 32, 32)))
    made = [functional.conv_transpose2d(features.relu(), kernel * np.sqrt(2 / n), stride=2) for n in (128, 32)]
    show(
        "deviation 1, a ReLU, a transposed convolution by He with fan-in 128, 32: deviation after it",
        *(each.std().item() for each in made),
    )
    show("fan-in of that kernel by nn.init", nn.init._calculate_fan_in_and_fan_out(kernel)[0])


def concat():
    second, last = np.zeros((8, 32, 64, 64), np.float32), np.zeros((8, 64, 64, 32), np.float32)
    torch_pair = [torch.from_numpy(second)] * 2
    joined = (
        torch.cat(torch_pair).shape,
        "you say it",
        keras.layers.Concatenate()([last, last]).shape,
        functions.concat([second, second]).shape,
    )
    show("two maps of 32 channels joined by default", *(v if isinstance(v, str) else str(tuple(v)) for v in joined))
    show(
        "TensorFlow with axis=1, with axis=3",
        str(tuple(tf.concat([last, last], 1).shape)),
        str(tuple(tf.concat([last, last], 3).shape)),
    )
    x = keras.layers.Concatenate(axis=1)([keras.Input((64, 64, 32)), keras.Input((64, 64, 32))])
    show("Keras with axis=1, and a convolution after it", str(x.shape), str(keras.layers.Conv2D(32, 1)(x).shape))
    show("megabytes that keeping a skip of 8 x 32 x 64 x 64 takes", second.nbytes / 1e6)
    network = network_of("concat").eval()
    _, images, _ = newts("concat", "test")
    batch = answer("concat").to_tensor(images[:1], "cpu")
    with torch.no_grad():
        right = network(batch)
        weight = network.decoder[1][0][0].weight  # of the 1 x 1 convolution after the concatenation
        weight.data = torch.cat(
            [weight[:, 32:], weight[:, :32]], dim=1
        )  # as if the two were joined the other way round
        wrong = network(batch)
    changed = (right.argmax(1) != wrong.argmax(1)).float().mean().item()
    show("joined in the other order: pixels that change their class, untrained", f"{changed:.1%}")
    show(
        "parameters of nearest, transposeconv, concat",
        *(parameters(name) for name in ("nearest", "transposeconv", "concat")),
    )


def parameters(exercise):
    """Return how many numbers training sets in the network of an exercise."""
    return sum(parameter.numel() for parameter in network_of(exercise).parameters())


def unet():
    size, skips = 572, []
    for _ in range(4):
        skips.append(size - 4)
        size = (size - 4) // 2
    size -= 4
    for skip in reversed(skips):
        size *= 2
        show("a skip of that size, cropped to, by on each side", skip, size, (skip - size) // 2)
        size -= 4
    show("output of 572, margin on each side", size, (572 - size) // 2)
    show("scale that fitting the whole mask into the output teaches", 388 / 572)
    x = image([[1, 2, 3]] * 3)
    pads = ((0, 0), (2, 2))
    show(
        "1 2 3 padded by 2: NumPy reflect, symmetric",
        *(np.pad([1, 2, 3], 2, mode) for mode in ("reflect", "symmetric")),
    )
    show(
        "OpenCV BORDER_REFLECT, BORDER_REFLECT_101",
        *(
            cv2.copyMakeBorder(np.float32([[1, 2, 3]]), 0, 0, 2, 2, border)[0]
            for border in (cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101)
        ),
    )
    padded = (
        functional.pad(x[0], (2, 2, 0, 0), mode="reflect"),
        tf.pad(x[1], ((0, 0), (0, 0), (2, 2), (0, 0)), "REFLECT"),
        keras.ops.pad(x[2], ((0, 0), (0, 0), (2, 2), (0, 0)), mode="reflect"),
        functions.pad(x[3], ((0, 0), (0, 0), *pads), mode="reflect"),
    )
    show("reflect", *(plane(tensor)[0] for tensor in padded))
    small = image(np.zeros((52, 52)))
    wide = ((0, 0), (92, 92), (92, 92), (0, 0))
    show(
        "52 mirrored outward by 92",
        *map(
            attempt,
            (
                lambda: size_of(functional.pad(small[0], (92, 92, 92, 92), mode="reflect")),
                lambda: size_of(tf.pad(small[1], wide, "REFLECT")),
                lambda: size_of(keras.ops.pad(small[2], wide, mode="reflect")),
                lambda: size_of(functions.pad(small[3], ((0, 0), (0, 0), (92, 92), (92, 92)), mode="reflect")),
            ),
        ),
    )
    show("parameters of unet", parameters("unet"))

    class OfTorch(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = [nn.Conv2d(1, 1, 3)]

    class OfTensorFlow(tf.Module):
        def __init__(self):
            self.parts = [tf.Variable([1.0]), tf.Variable([1.0])]

    class OfKeras(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [keras.layers.Conv2D(1, 3)]
            self.parts[0].build((None, 8, 8, 1))

    class OfChainer(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.parts = [links.Convolution2D(1, 1, 3)]

    seen = (
        len(list(OfTorch().parameters())),
        len(OfTensorFlow().trainable_variables),
        len(OfKeras().trainable_variables),
        len(list(OfChainer().params())),
    )
    show("kernel and bias in a plain list, of these are seen", *seen)
    sizes = list(answer("unet").NUMBERS["size"][1])
    show("sizes of input that go", sizes[0], sizes[1], sizes[2])


def unetlike():
    show("parameters of unetlike", parameters("unetlike"))
    show("pixels that one logit of unetlike depends on, across: least, most", *extent("unetlike", 256))
    network = network_of("unetlike")
    module = answer("unetlike")
    _, images, targets = newts("unetlike")
    loss = module.compute_loss(network(module.to_tensor(images[:8], "cpu")), torch.from_numpy(targets[:8])[:, None])
    loss.backward()
    convolution = network.encoder[0][0]
    show(
        "largest gradient of the first kernel, of its bias",
        convolution.weight.grad.abs().max().item(),
        convolution.bias.grad.abs().max().item(),
    )
    network = network_of("semaseg_loss")
    module.compute_loss(network(module.to_tensor(images[:8], "cpu")), torch.from_numpy(targets[:8])[:, None]).backward()
    show(
        "the same where ReLU stands before batch norm",
        network[0][0].weight.grad.abs().max().item(),
        network[0][0].bias.grad.abs().max().item(),
    )
    odd = image(np.zeros((72, 72)))
    for name, pool in (
        ("PyTorch", lambda x: functional.max_pool2d(x, 2)),
        ("Chainer", lambda x: functions.max_pooling_2d(x, 2)),
    ):
        x, seen = odd[0] if name == "PyTorch" else odd[3], []
        for _ in range(4):
            x = pool(x)
            seen.append(size_of(x))
        show(f"72 pooled four times, {name}", np.array(seen))
    strided = image(np.arange(16).reshape(4, 4))
    kernel = np.ones((3, 3), np.float32)
    same = (
        functional.conv2d(strided[0], torch.from_numpy(kernel[None, None]), stride=2, padding=1),
        tf.nn.conv2d(strided[1], kernel[..., None, None], 2, "SAME"),
        keras.ops.conv(strided[2], kernel[..., None, None], strides=2, padding="same"),
        functions.convolution_2d(strided[3], kernel[None, None], stride=2, pad=1),
    )
    show(
        "0 to 15 in 4 x 4 through 3 x 3 ones at stride 2, same or padding 1",
        *(plane(tensor).ravel() for tensor in same),
    )
    show("PyTorch with padding='same' at stride 2", attempt(lambda: nn.Conv2d(1, 1, 3, stride=2, padding="same")))


def segnet():
    ties = image([[5, 5], [5, 5]])
    places = (
        functional.max_pool2d(ties[0], 2, return_indices=True)[1],
        tf.nn.max_pool_with_argmax(ties[1], 2, 2, "VALID")[1],
        keras.ops.argmax(keras.ops.reshape(ties[2], (1, 4)), axis=1),
        functions.max_pooling_2d(ties[3], 2, return_indices=True)[1],
    )
    show("place of the maximum of 5 5 / 5 5", *(np.asarray(place).ravel() for place in places))
    of_torch = ties[0].clone().requires_grad_()
    functional.max_pool2d(of_torch, 2).sum().backward()
    of_chainer = chainer.Variable(ties[3])
    pooled = functions.max_pooling_2d(of_chainer, 2)
    functions.sum(pooled).backward()
    slopes = [plane(of_torch.grad).ravel(), None, None, of_chainer.grad.ravel()]
    for i, pool in ((1, lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID")), (2, lambda x: keras.ops.max_pool(x, 2))):
        with tf.GradientTape() as tape:
            tape.watch(ties[i])
            out = pool(ties[i])
        slopes[i] = plane(tape.gradient(out, ties[i])).ravel()
    show("where the gradient of that maximum goes", *slopes)
    with tf.GradientTape() as tape:
        tape.watch(ties[2])
        out = keras.ops.max(ties[2])
    show("the same by keras.ops.max", plane(tape.gradient(out, ties[2])).ravel())

    maps = np.zeros((1, 4, 4, 2), np.float32)
    maps[0, 2, 3] = 1  # in both channels, row 2, column 3
    second = np.ascontiguousarray(maps.transpose(0, 3, 1, 2))
    windows = maps.reshape(1, 2, 2, 2, 2, 2).transpose(0, 1, 3, 5, 2, 4).reshape(1, 2, 2, 2, 4)
    found = (
        functional.max_pool2d(torch.from_numpy(second), 2, return_indices=True)[1].numpy()[0, :, 1, 1],
        tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID")[1].numpy()[0, 1, 1],
        windows.argmax(-1)[0, 1, 1],
        functions.max_pooling_2d(second, 2, return_indices=True)[1][0, :, 1, 1],
    )
    show("index of row 2, column 3 of 4 x 4, in both of two channels", *found)
    pooled, indices = functions.max_pooling_2d(np.zeros((1, 1, 8, 8), np.float32), 2, return_indices=True)
    for name, cover_all in (("by default", True), ("with cover_all=False", False)):
        show(
            f"size of 4 after Chainer's upsampling_2d {name}",
            size_of(functions.upsampling_2d(pooled, indices, 2, cover_all=cover_all)),
        )
    network, module = network_of("segnet"), answer("segnet")
    _, images, _ = newts("segnet")
    with torch.no_grad():
        features = network.encoder[0](module.to_tensor(images[:4], "cpu"))
        values = functional.unfold(features.reshape(-1, 1, 64, 64), 2, stride=2)  # (batch x channel, 4, windows)
        largest = values.max(1).values
        tied = (values == largest[:, None]).sum(1) > 1
        x, indices = functional.max_pool2d(features, 2, return_indices=True)
        zeros = (functional.max_unpool2d(torch.ones_like(x), indices, 2) == 0).float().mean().item()
    show("share of windows whose maximum comes twice, first pooling, untrained", f"{tied.float().mean():.1%}")
    show("share of those whose maximum is 0", f"{(largest[tied] == 0).float().mean():.1%}")
    show("share of zeros after unpooling", f"{zeros:.0%}")
    show("parameters of segnet", parameters("segnet"))
    show(
        "bytes to keep one index: PyTorch, Chainer",
        indices.element_size(),
        functions.max_pooling_2d(second, 2, return_indices=True)[1].itemsize,
    )


TRAPS = {
    trap.__name__: trap
    for trap in (
        bin_dataset,
        bin_loss,
        bin_test,
        semaseg_dataset,
        semaseg_loss,
        semaseg_test,
        nearest,
        transposeconv,
        concat,
        unet,
        unetlike,
        segnet,
    )
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exercises", default=" ".join(TRAPS), help="(%(default)s)")
    options = parser.parse_args()
    for exercise in options.exercises.split():
        if exercise not in TRAPS:
            print(f"traps.py: --exercises: there is no {exercise!r}; there is {', '.join(TRAPS)}", file=sys.stderr)
            sys.exit(2)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    for exercise in options.exercises.split():
        print(exercise)
        TRAPS[exercise]()


if __name__ == "__main__":
    main()
