"""Print every number that a trap of the lesson on VOC names, one a line, so that anyone can measure it again.

    python benchmarks/voc_traps.py [--exercises "voc_dataset deeplab"] [--weights FILE.pth | --untrained]

Nothing is trained. What needs trained weights takes those that the answer to voc_test leaves at its defaults,
outputs/05_voc_test_pytorch/weights.pth, and the drawn pictures in Dataset/voc/; with --untrained it is left out.
"""

import argparse
import contextlib
import io
import logging
import math
import sys
import tempfile
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
from PIL import Image
from traps import REPOSITORY, answer, attempt, chainer, functional, functions, keras, links, nn, show, tf, torch

WEIGHTS = REPOSITORY / "outputs/05_voc_test_pytorch/weights.pth"
OPTIONS = {}  # of this script


class Drawn(torch.utils.data.Dataset):
    """Eight items that are random numbers, from a generator of the data set or from NumPy's global one."""

    def __init__(self, rng):
        self.rng = rng

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return int(self.rng.integers(2**62) if self.rng else np.random.randint(2**62))


def count_distinct(numbers):
    return f"{len(set(numbers))} of {len(numbers)}"


def val_pairs():
    """Yield image and mask of each picture to validate with."""
    module = answer("voc_dataset")
    voc = module.find_voc(module.DRAWN)
    for name in module.read_names(voc, "val"):
        yield module.read_pair(voc, name)


def voc_dataset():
    module = answer("voc_dataset")
    voc = module.find_voc(module.DRAWN)
    path = voc / "SegmentationClass" / f"{module.read_names(voc, 'val')[0]}.png"
    mask = module.read_mask(path)
    show("indices in the first mask of val", np.unique(mask))
    for flag in ("IMREAD_UNCHANGED", "IMREAD_GRAYSCALE", "IMREAD_COLOR"):
        array = cv2.imread(str(path), getattr(cv2, flag))
        show(f"OpenCV, {flag}: shape, values", str(array.shape), np.unique(array.reshape(-1, *array.shape[2:]), axis=0))
    greys = [Image.fromarray(module.COLOURS[[[i]]]).convert("L").getpixel((0, 0)) for i in [*range(21), 255]]
    show("Pillow, convert('L') of the colours of 0 to 20 and void", greys, f"{len(set(greys))} distinct")
    decoded = tf.io.decode_png(path.read_bytes()).numpy()
    show(
        "TensorFlow, decode_png: shape, values",
        str(decoded.shape),
        np.unique(decoded.reshape(-1, decoded.shape[2]), axis=0),
    )
    decoded = tf.io.decode_png(path.read_bytes(), channels=1).numpy()
    show("TensorFlow, decode_png(channels=1): values", np.unique(decoded))
    for mode in ("grayscale", "rgb"):
        loaded = np.array(keras.utils.load_img(path, color_mode=mode))
        show(
            f"Keras, load_img({mode}): shape, values",
            str(loaded.shape),
            np.unique(loaded.reshape(-1, *loaded.shape[2:]), axis=0),
        )
    pairs = chainer.datasets.ImageDataset([path.name], str(path.parent), dtype=np.uint8)
    show("Chainer, ImageDataset: shape, values", str(pairs[0].shape), np.unique(pairs[0]))

    strange = strange_pixels = pixels = 0
    nearest, exact = [], []
    for _, mask in val_pairs():
        side = min(mask.shape)
        top, left = ((length - side) // 2 for length in mask.shape)
        square = mask[top : top + side, left : left + side]
        small = {
            kind: cv2.resize(square, (128, 128), interpolation=getattr(cv2, f"INTER_{kind}"))
            for kind in ("NEAREST", "NEAREST_EXACT", "LINEAR", "AREA")
        }
        nearest.append(small["NEAREST"]), exact.append(small["NEAREST_EXACT"])
        new = ~np.isin(small["LINEAR"], np.unique(square))
        strange += new.any()
        strange_pixels, pixels = strange_pixels + new.sum(), pixels + new.size
    nearest, exact = np.stack(nearest), np.stack(exact)
    objects = [(x > 0) & (x < 255) for x in (nearest, exact)]
    show(
        "INTER_NEAREST against INTER_NEAREST_EXACT: IoU of objects",
        (objects[0] & objects[1]).sum() / (objects[0] | objects[1]).sum(),
    )
    show(
        "INTER_LINEAR of masks: share of pixels of an index that the mask lacks",
        f"{strange_pixels / pixels:.2%}",
        f"in {strange} of {len(exact)} masks",
    )

    for kind, make in (
        ("a generator of the data set", lambda: np.random.default_rng(0)),
        ("NumPy's global one", lambda: None),
    ):
        data = Drawn(make())
        loader = torch.utils.data.DataLoader(data, 1, num_workers=2)
        epochs = [[int(x) for x in loader] for _ in range(2)]
        iterator = chainer.iterators.MultiprocessIterator(Drawn(make()), 1, repeat=False, shuffle=False, n_processes=2)
        with iterator:
            drawn = [batch[0] for batch in iterator]
        show(
            f"{kind}, 2 workers: distinct numbers, PyTorch",
            count_distinct(epochs[0]),
            f"second epoch the same: {epochs[0] == epochs[1]}",
        )
        show(f"{kind}, 2 workers: distinct numbers, Chainer", count_distinct(drawn))
    show(
        "SerialIterator of 3 items: repeats, shuffles by default",
        *((lambda i: (str(i.repeat), str(i._shuffle)))(chainer.iterators.SerialIterator([1, 2, 3], 1))),
    )
    loader = torch.utils.data.DataLoader(list(range(10)), 4)
    batches = [len(x) for x in loader], [len(x) for x in tf.data.Dataset.range(10).batch(4)]
    show("10 items in batches of 4: PyTorch, TensorFlow", *(str(x) for x in batches))
    mean = np.array(answer("voc_dataset").normalise(np.uint8([[[124, 116, 104]]])))
    show("ImageNet's mean colour, normalised", mean)
    show("forgotten to divide by 255", (np.array([124, 116, 104]) - module.MEAN) / module.STD)


def atrous():
    x = torch.zeros(1, 1, 8, 8)
    show(
        "PyTorch, padding='same' with stride 2",
        attempt(lambda: functional.conv2d(x, torch.zeros(1, 1, 3, 3), stride=2, padding="same")),
    )
    show(
        "Keras, stride 2 and dilation 2 together",
        attempt(lambda: keras.layers.Conv2D(1, 3, strides=2, dilation_rate=2)(np.zeros((1, 9, 9, 1)))),
    )
    array = np.zeros((1, 9, 9, 1), np.float32)
    show(
        "TensorFlow, stride 2 and dilation 2 together",
        attempt(lambda: str(tf.nn.conv2d(array, np.zeros((3, 3, 1, 1), np.float32), 2, "VALID", dilations=2).shape)),
    )
    for size in (128, 129):
        one = np.zeros((1, 1, size, size), np.float32)
        shapes = [functions.max_pooling_2d(one, 3, 2, 1, cover_all=cover).shape[2] for cover in (True, False)]
        show(f"Chainer, max pooling 3, stride 2, pad 1, of {size}: with cover_all, without", *map(str, shapes))
    show(
        "padding of a 7 x 7 kernel with stride 2 by SAME: at 128, at 129",
        *(str(same_padding(size, 7, 2)) for size in (128, 129)),
    )
    x = np.float32([[0, 1, 2, 3]])[:, :, None, None].transpose(0, 2, 1, 3)
    show("TensorFlow, tf.image.resize of 0, 1, 2, 3 to 8", tf.image.resize(x, (1, 8)).numpy().ravel())
    show("tf.compat.v1.image.resize_bilinear", tf.compat.v1.image.resize_bilinear(x, (1, 8)).numpy().ravel())
    show("its align_corners=True", tf.compat.v1.image.resize_bilinear(x, (1, 8), align_corners=True).numpy().ravel())
    show("tf.image.resize of float64 gives", tf.image.resize(x.astype(float), (1, 8)).dtype.name)
    show(
        "tf.nn.max_pool2d of -1, 3 x 3, SAME: least",
        tf.nn.max_pool2d(-np.ones((1, 4, 4, 1), np.float32), 3, 2, "SAME").numpy().max(),
    )


def same_padding(side, kernel, stride):
    missing = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
    return missing // 2, missing - missing // 2


def load_network(exercise="voc_test"):
    """Return the answer, its options, its network with trained weights, and [(image, mask)] of val."""
    module = answer(exercise)
    with mock.patch.object(sys, "argv", [module.__file__, "--device", "cpu"]):
        options = module.read_options()
    network = module.build_network(np.random.default_rng(0), options)
    module.load_weights(network, OPTIONS["weights"], options.depth)
    return module, options, network, list(val_pairs())


def segment_all(module, network, pairs, options):
    """Return mIoU over whole images, and the class of each of their pixels, one after the other."""
    found = [module.segment(network, image, options) for image, _ in pairs]
    counts = sum(module.count_pairs(mask, classes) for (_, mask), classes in zip(pairs, found, strict=True))
    return module.measure(counts)["miou"], np.concatenate([classes.ravel() for classes in found])


def round_to_tf32(x):
    """Return float32 numbers with the 10 bits behind the point that a GPU's TF32 keeps of their 23."""
    return ((x.view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


class Same(nn.Module):
    """A convolution that pads as SAME does."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        reach = self.layer.dilation[0] * (self.layer.kernel_size[0] - 1) + 1
        (top, bottom), (left, right) = (same_padding(length, reach, self.layer.stride[0]) for length in x.shape[2:])
        return functional.conv2d(
            functional.pad(x, (left, right, top, bottom)),
            self.layer.weight,
            None,
            self.layer.stride,
            0,
            self.layer.dilation,
        )


def deeplab():
    evil = b"cos\nsystem\n(S'date'\ntR."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.pth")
        path.write_bytes(evil)
        show("torch.load of a pickle that runs a command", attempt(lambda: torch.load(path, weights_only=True)))
    plain = {"a": torch.zeros(2, 3)}
    sizes = {}
    for kind in (True, False):
        file = io.BytesIO()
        torch.save(plain, file, _use_new_zipfile_serialization=kind)
        sizes[kind] = file.getvalue()[:2]
    show("first bytes of a file: zip, legacy", *map(str, sizes.values()))
    module = answer("deeplab")
    with torch.device("meta"):
        names = {depth: list(module.DeepLabV3(depth).state_dict()) for depth in module.RESNETS}
    for depth, entries in names.items():
        counters = sum(name.endswith("num_batches_tracked") for name in entries)
        show(f"depth {depth}: entries, num_batches_tracked among them", len(entries), counters)
    defaults = keras.layers.BatchNormalization().epsilon, links.BatchNormalization(1).eps
    show("epsilon of batch norm by default: Keras, Chainer", *map(str, defaults))


def deeplab_trained():
    module, options, network, pairs = load_network()
    miou, right = segment_all(module, network, pairs, options)
    show("mIoU on val, whole images, as trained; for each slip, also the share of pixels that change their class", miou)

    def changed(change, *patches):
        fresh = load_network()[2]
        change(fresh)
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            miou, found = segment_all(module, fresh, pairs, options)
        return miou, f"{(found != right).mean():.1%}"

    def norms(network):
        return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]

    def set_epsilon(network):
        for layer in norms(network):
            layer.eps = 1e-3

    def set_first(network):
        for name, (_, _, _, others) in module.STAGES.items():
            layer = getattr(network.backbone, name)[0].conv2
            layer.dilation = layer.padding = (others, others)

    def set_none(network):
        for name in module.STAGES:
            for block in getattr(network.backbone, name):
                block.conv2.dilation = block.conv2.padding = (1, 1)

    def set_stride(network):
        block = network.backbone.layer2[0]
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)

    def set_same(network):
        network.backbone.conv1 = Same(network.backbone.conv1)
        network.backbone.layer2[0].conv2 = Same(network.backbone.layer2[0].conv2)

    def as_before(network):
        pass

    def forget_averages(network):
        for layer in norms(network):
            layer.reset_running_stats()

    pool, interpolate, normalise = functional.max_pool2d, functional.interpolate, module.normalise
    convolve = functional.conv2d

    def pool_same(x, *_, **__):
        (top, bottom), (left, right) = (same_padding(length, 3, 2) for length in x.shape[2:])
        return pool(functional.pad(x, (left, right, top, bottom), value=-math.inf), 3, 2)

    def align(x, size, **_):
        return interpolate(x, size, mode="bilinear", align_corners=True)

    def convolve_in_tf32(x, weight, *rest):
        return convolve(*(round_to_tf32(each) for each in (x, weight)), *rest)

    def patch(name, new, where=functional):
        return mock.patch.object(where, name, new)

    for label, change, *patches in (
        ("batch norm's epsilon 1e-3", set_epsilon),
        ("SAME padding of the strided layers", set_same, patch("max_pool2d", pool_same)),
        (
            "max pooling with ceil_mode (cover_all)",
            as_before,
            patch("max_pool2d", lambda x, *_, **__: pool(x, 3, 2, 1, ceil_mode=True)),
        ),
        ("align_corners=True", as_before, patch("interpolate", align)),
        ("stride in the first 1 x 1 convolution", set_stride),
        ("first block of a stage with the stage's dilation", set_first),
        ("no dilation", set_none),
        ("running averages left at 0 and 1", forget_averages),
        ("blue, green, red", as_before, patch("normalise", lambda image: normalise(image[..., ::-1]), module)),
        ("from 0 to 1, not normalised", as_before, patch("normalise", lambda image: np.float32(image / 255), module)),
        ("from -1 to 1", as_before, patch("normalise", lambda image: np.float32(image / 127.5 - 1), module)),
        ("convolutions in TF32", as_before, patch("conv2d", convolve_in_tf32)),
    ):
        show(f"  {label}", *changed(change, *patches))

    options.depth = "101"
    network = module.build_network(np.random.default_rng(0), options)
    crops = [module.normalise(module.centre_crop(*pair, 128)[0]) for pair in pairs[:4]]
    images = module.to_tensor(np.stack(crops), "cpu")
    for layer in norms(network):
        layer.momentum = 1.0  # the running averages become those of these images
    with torch.inference_mode():
        network.train()(images)
        exact = network.eval().double()(images.double())[0]
        single = network.float()(images)[0]
        with patch("conv2d", convolve_in_tf32):
            rounded = network(images)[0]
    for label, found in (("float32", single), ("convolutions in TF32", rounded)):
        show(
            f"random weights of depth 101, {label}: largest error of a logit, to the largest logit; same classes",
            float((found - exact).abs().max() / exact.abs().max()),
            f"{(found.argmax(dim=1) == exact.argmax(dim=1)).double().mean():.2%}",
        )


def deeplab_finetune():
    logits, target = np.zeros((1, 2, 2, 21), np.float32), np.full((1, 2, 2), 255)
    half = target.copy()
    half[0, 0] = 0  # of four pixels two are void; each of the others costs log(21) = 3.045
    first = logits.transpose(0, 3, 1, 2)
    for label, mask in (("half", half), ("all", target)):
        found = (
            float(functional.cross_entropy(torch.tensor(first), torch.tensor(mask), ignore_index=255)),
            attempt(lambda mask=mask: np.mean(tf.nn.sparse_softmax_cross_entropy_with_logits(mask, logits))),
            attempt(
                lambda mask=mask: float(
                    keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)(mask, logits)
                )
            ),
            attempt(
                lambda mask=mask: float(
                    functions.softmax_cross_entropy(first, mask.astype(np.int32), ignore_label=255).array
                )
            ),
        )
        show(f"cross entropy, {label} void", *found)
    show(
        "PyTorch, 255 and no ignore_index",
        attempt(lambda: float(functional.cross_entropy(torch.tensor(first), torch.tensor(half)))),
    )
    show(
        "Chainer, 255 and no ignore_label",
        attempt(lambda: float(functions.softmax_cross_entropy(first, half.astype(np.int32)).array)),
    )
    show(
        "PyTorch, uint8 masks",
        attempt(
            lambda: functional.cross_entropy(
                torch.tensor(first), torch.tensor(half, dtype=torch.uint8), ignore_index=255
            )
        ),
    )

    x = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32) + 1
    layer = nn.BatchNorm2d(3).requires_grad_(False)
    layer(torch.tensor(x))
    frozen = keras.layers.BatchNormalization()
    frozen.build((None, 5, 5, 3))
    frozen.trainable = False
    frozen(x.transpose(0, 2, 3, 1), training=True)
    link = links.BatchNormalization(3)
    link.disable_update()
    link(x)
    moved = (
        bool(layer.running_mean.abs().sum()),
        bool(np.abs(frozen.moving_mean.numpy()).sum()),
        bool(np.abs(link.avg_mean).sum()),
    )
    show(
        "frozen by requires_grad_(False), trainable=False, disable_update: do the averages move",
        *(str(each) for each in moved),
    )
    network = nn.Sequential(nn.BatchNorm2d(3).eval())
    network.train()
    show("PyTorch, eval() of a layer, then train() of the network: in training", str(network[0].training))
    show("PyTorch, batch norm of (1, 8, 1, 1) in training", attempt(lambda: nn.BatchNorm2d(8)(torch.zeros(1, 8, 1, 1))))
    link = links.BatchNormalization(8)
    with chainer.using_config("train", True):
        show(
            "Chainer, the same: finite",
            attempt(lambda: str(bool(np.isfinite(link(np.ones((1, 8, 1, 1), np.float32)).array).all()))),
            "its average variance",
            str(link.avg_var[:1]),
        )
    wanted = keras.layers.BatchNormalization()
    show("Keras, the same: output", np.unique(wanted(np.ones((1, 1, 1, 8), np.float32), training=True)))
    module = answer("deeplab_finetune")
    rates = [module.learning_rate(step, 150, 1) for step in (0, 75, 149)]
    show("poly, of 150 steps: first, 76th, last", *rates)


def deeplab_finetune_trained():
    module, options, network, pairs = load_network()
    crops = [module.centre_crop(image, mask, 128) for image, mask in pairs]
    order = np.random.default_rng(0).permutation(len(crops))
    images = np.stack([module.normalise(crops[i][0]) for i in order])
    masks = np.stack([crops[i][1] for i in order])
    network.eval()
    entries = module.list_entries(network)
    for number in (0, 2, 4, 8, 16, 48):
        pairs_found = 0
        for start in range(0, 48, number or 48):
            part = slice(start, start + (number or 48))
            for layer in network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.train(bool(number))
            with torch.inference_mode():
                logits = network(module.to_tensor(images[part], "cpu"))[0]
            module.set_entries(network, entries)
            pairs_found = pairs_found + module.count_pairs(masks[part], logits.argmax(dim=1).numpy())
        show(
            f"mIoU of 48 crops, batch norm by {f'statistics of {number} images' if number else 'running averages'}",
            module.measure(pairs_found)["miou"],
        )
    one = module.to_tensor(images[:1], "cpu")
    network.train()
    show("PyTorch, training with a batch of one", attempt(lambda: network(one)))
    names = [
        name
        for name in entries
        if name.startswith(module.HEADS if hasattr(module, "HEADS") else answer("deeplab_finetune").HEADS)
    ]
    new = sum(entries[name].size for name in names)
    show("parameters of the layers that tell classes apart", new, "of", sum(w.numel() for w in network.parameters()))


def voc_test():
    module = answer("voc_test")
    pairs = list(val_pairs())
    for kind, masks in (
        ("whole images", [mask for _, mask in pairs]),
        ("centre crops", [module.centre_crop(*pair, 128)[1] for pair in pairs]),
    ):
        empty = module.measure(sum(module.count_pairs(mask, np.zeros_like(mask)) for mask in masks))
        show(f"everything background, {kind}: mIoU, pixel accuracy", empty["miou"], empty["pixel_accuracy"])
        show(f"share of void, {kind}", float(np.mean([(mask == module.VOID).mean() for mask in masks])))
    with np.errstate(over="ignore"):
        show("21 * 13 of uint8", np.uint8(21) * np.uint8(13))
    for index in (0, 255):
        shown = Image.fromarray(np.uint8([[index]]))
        shown.putpalette(module.COLOURS.tobytes())
        show(f"index {index}: as RGB", str(shown.convert("RGB").getpixel((0, 0))))


def voc_test_trained():
    module, options, network, pairs = load_network()
    counts, per_image, void, small = [], [], 0, 0
    for image, mask in pairs:
        found = module.segment(network, image, options)
        counts.append(module.count_pairs(mask, found))
        per_image.append(module.measure(counts[-1]))
        void = void + np.bincount(found[mask == 255], minlength=21)
        size = tuple(max(1, round(length * options.size / min(mask.shape))) for length in mask.shape)
        cut = [cv2.resize(x, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for x in (mask, found)]
        small = small + module.count_pairs(*cut)
    whole = module.measure(sum(counts))
    show("mIoU, pixel accuracy over the whole set", whole["miou"], whole["pixel_accuracy"])
    values = [value if value is not None else 0 for value in whole["iou"].values()]
    show(
        "absent classes as 0",
        float(np.mean(values)),
        f"{sum(value is None for value in whole['iou'].values())} of 21 absent",
    )
    show("mean over images of each image's mIoU", float(np.mean([each["miou"] for each in per_image])))
    zeros = [np.mean([value or 0 for value in each["iou"].values()]) for each in per_image]
    show("the same, absent classes as 0", float(np.mean(zeros)))
    show(
        "without background",
        float(np.mean([v for k, v in whole["iou"].items() if v is not None and k != "background"])),
    )
    counted = module.measure(sum(counts), void)
    show("void counted as wrong: mIoU, pixel accuracy", counted["miou"], counted["pixel_accuracy"])
    show("truth reduced to the size of the prediction", module.measure(small)["miou"])


TRAPS = {trap.__name__: trap for trap in (voc_dataset, atrous, deeplab, deeplab_finetune, voc_test)}
TRAINED = {"deeplab": deeplab_trained, "deeplab_finetune": deeplab_finetune_trained, "voc_test": voc_test_trained}


def stop(message):
    """End with one line and status 2."""
    print(f"voc_traps.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--exercises", default=" ".join(TRAPS), help="(%(default)s)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="trained by the answer to voc_test (%(default)s)")
    parser.add_argument("--untrained", action="store_true", help="only what needs no weights")
    options = parser.parse_args()
    chosen = options.exercises.split()
    for exercise in chosen:
        if exercise not in TRAPS:
            stop(f"--exercises: there is no {exercise!r}; there is {', '.join(TRAPS)}")
    trained = {} if options.untrained else {each: TRAINED[each] for each in chosen if each in TRAINED}
    if trained and not options.weights.exists():
        stop(f"{options.weights}: no such file: run Question_voc/answers/05_voc_test_pytorch.py, or give --weights")
    OPTIONS["weights"] = options.weights
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    for exercise in chosen:
        print(exercise)
        TRAPS[exercise]()
        if exercise in trained:
            trained[exercise]()


if __name__ == "__main__":
    main()
