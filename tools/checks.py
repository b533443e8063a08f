"""What an attempt at an exercise is checked for: each check makes the attempt and the answer compute the same thing.

A check is a function of a Side, an attempt or an answer, and returns {what: numbers}. An attempt is right in it where
it returns what the answer does. All inputs are made here, small and from fixed seeds; both sides get the same weights,
copied layer by layer, where the draw of the weights is not itself what is checked. Both compute in double precision,
in which rounding is too small to be taken for a difference; that an attempt runs in single precision, too, is a check
of its own. tools/check.py runs the checks and reports them.
"""

import contextlib
import io
import itertools
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

import convert_weights
import cv2
import numpy as np
from exercises import load_answer
from scipy import sparse

# Inputs as small as each network takes; and for those with many channels, fewer, where an attempt has the constants.
SIZES = {"unet": 188, "unetlike": 32, "segnet": 32}
SMALL = {
    "unet": {"CHANNELS": (4, 5, 6, 7, 8)},
    "unetlike": {"CHANNELS": (4, 5, 6, 7, 8)},
    "segnet": {
        "ENCODER": ((3, 4, 4), (4, 5, 5), (5, 6, 6, 6), (6, 7, 7, 7), (7, 7, 7, 7)),
        "DECODER": ((7, 7, 7, 7), (7, 7, 7, 6), (6, 6, 6, 5), (5, 5, 4), (4, 4, 64)),
    },
}
MIRRORED = ("bin_dataset", "semaseg_dataset")  # the exercises whose task is to mirror images, and no more
BATCH, NUMBER, STEPS = 2, 5, 5  # images in a batch, images in all, iterations of a training
# The checks in which an attempt may have more than the answer: options and measures of its own.
MORE = ("options", "test", "measures", "measures of an absent class", "test-time augmentation")
RUNNING = ("mean", "variance", "average")  # how the names of running averages end
CLOSE = 1e-7  # relative difference up to which numbers are the same
TYPES = {"float32", "float64"}
ADVICE = "; let FLOAT be the type of all arrays and tensors: the checks change it"


class Failed(Exception):
    """What is wrong with an attempt, in one line."""


class Left(Exception):
    """Why a check says nothing of an attempt, in one line."""


class Check(NamedTuple):
    """A check: its name, the functions that it calls, the checks without which it means nothing, and what it does."""

    name: str
    calls: tuple[str, ...]
    needs: tuple[str, ...]
    observe: object


class Side:
    """An attempt, or the answer that it is held against."""

    def __init__(self, path, exercise, framework):
        """Import it. Raises what importing it raises."""
        self.path, self.exercise, self.framework = Path(path), exercise, framework
        with silence():
            self.module = load_answer(path)
        self.has_float, self.is_attempt = hasattr(self.module, "FLOAT"), False
        self.notes = {}  # on checks: what may explain it where they do not hold
        self.module.FLOAT = "float64"
        self.out = tempfile.TemporaryDirectory()  # for what it writes in training
        self.full = {name: getattr(self.module, name, None) for name in SMALL.get(exercise.name, ())}

    def has(self, name):
        return callable(getattr(self.module, name, None))

    def options(self, arguments=(), **changes):
        """Return the options of a command line, changed; the framework is set up for this side's type of float."""
        argv, sys.argv = sys.argv, [str(self.path), "--device", "cpu", *arguments]
        try:
            options = self.module.read_options()
        finally:
            sys.argv = argv
        for name, value in changes.items():
            setattr(options, name, value)
        return options

    def small(self, arguments=(), **changes):
        """Return options for small inputs."""
        size = SIZES.get(self.exercise.name, 16)
        standard = {"augment": "none", "iterations": STEPS, "batch": BATCH, "size": size} | changes
        options = self.options(arguments, **standard)
        options.out = Path(self.out.name)
        return options

    def shrink(self, small):
        """Give the network few channels, or as many as it has by itself."""
        for name, value in self.full.items():
            if value is not None:
                setattr(self.module, name, SMALL[self.exercise.name][name] if small else value)

    def build(self, options, seed=0):
        """Return a network with weights drawn from a seed."""
        return self.module.build_network(np.random.default_rng(seed), options)

    def to_tensor(self, array):
        """Return an array (batch, height, width, channels) as a tensor of the framework."""
        if self.framework == "keras" and not self.has("to_tensor"):  # where Keras itself makes tensors in training
            return sys.modules["keras"].ops.convert_to_tensor(array)
        return self.module.to_tensor(array, "cpu")

    def to_array(self, tensor):
        """Return a tensor, or a number, as an array, the channels of a batch of images last."""
        if self.framework == "pytorch" and hasattr(tensor, "detach"):
            tensor = tensor.detach()
        array = np.asarray(getattr(tensor, "array", tensor))
        return array.transpose(0, 2, 3, 1) if array.ndim == 4 and self.framework in ("pytorch", "chainer") else array


@contextlib.contextmanager
def silence():
    """Let what an attempt prints pass unseen, its progress bars among it; a message with which it stops is kept."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as messages:
        try:
            yield
        except SystemExit as error:
            lines = messages.getvalue().replace("\r", "\n").splitlines() or [""]
            raise Failed(f"it stops with status {error.code}: {lines[-1]}") from error


# ---- the weights of a network ----


def list_weights(side, network, own=False):
    """Return [(name, array)] of a network's weights and running averages, as the framework has them.

    They are those that convert_weights.py finds, layer by layer; or, own, those that the framework itself lists. An
    attempt may hold its layers in any order: they are listed and named in that in which data pass them.
    """
    by_graph = own and side.framework in ("tensorflow", "keras")  # which tells the turns of whatever holds arrays
    turns = find_turns(side, network) if by_graph or side.is_attempt and not own else {}
    if own:  # by their place, since the names are the attempt's
        pairs = sorted(list_own(side.framework, network), key=lambda pair: turns.get(id(pair[1]), 0))
        return [(f"array {i}" + " average" * is_average, array) for i, (is_average, array) in enumerate(pairs)]
    layers = convert_weights.find_layers(side.framework, network)
    layers = sorted(layers, key=lambda layer: turns.get(id(layer[1][0]), 0))
    return [(name, array) for name, _, array in convert_weights.name_arrays(layers)]


def find_turns(side, network):
    """Return {id of an array: turn}: when, in a forward pass, the part of a network that holds the array is first used.

    It is empty where that of some part is not known, as of a PyTorch module that is not called, only its weights read.
    """
    used, size = [], 32 if side.exercise.subject == "digits" else SIZES.get(side.exercise.name, 16)
    with contextlib.suppress(Exception):
        images = side.to_tensor(np.zeros((BATCH, size, size, 3), side.module.FLOAT))
        if side.framework == "pytorch":
            add, mode = sys.modules["torch"].nn.modules.module.register_module_forward_pre_hook, network.training
            try:
                with add(lambda module, _: used.extend(map(id, get_arrays(module)))):
                    run(side, network, images, training=False)
            finally:
                network.train(mode)  # as it was built, so that an attempt has to choose the mode that it needs
        elif side.framework == "chainer":
            hook = sys.modules["chainer"].LinkHook()
            hook.forward_preprocess = lambda call: used.extend(map(id, get_arrays(call.link)))
            with hook:
                run(side, network, images, training=False)
        else:  # a graph lists its variables as they come
            arrays, is_keras = [array for _, array in list_own(side.framework, network)], side.framework == "keras"
            handles = {id((array.value if is_keras else array).handle): id(array) for array in arrays}
            graph = sys.modules["tensorflow"].function(lambda images: run(side, network, images, training=False))
            used += [handles.get(id(handle)) for handle in graph.get_concrete_function(images).captured_inputs]
    first, turns = {array: turn for turn, array in reversed([*enumerate(used)])}, {}
    for part in list_parts(side.framework, network):
        names = [id(array) for array in get_arrays(part)]
        if names and not first.keys() & set(names):
            return {}
        turns |= dict.fromkeys(names, min((first[name] for name in names if name in first), default=0))
    return turns


def list_parts(framework, network):
    """Return a network and all that it consists of, down to single layers."""
    if framework == "pytorch":
        return [*network.modules()]
    if framework == "chainer":
        return [*network.links()]
    return [network, *network.submodules] if framework == "tensorflow" else [*network._flatten_layers()]


def get_arrays(part):
    """Return the weights and running averages that a part of a network holds itself."""
    if hasattr(part, "_buffers"):  # PyTorch's
        return [array for array in [*part._parameters.values(), *part._buffers.values()] if array is not None]
    if hasattr(part, "_persistent"):  # Chainer's
        arrays = [getattr(part, name) for name in (*part._params, *part._persistent)]
        return [array for array in arrays if hasattr(array, "shape")]
    if hasattr(part, "_trainable_variables"):  # Keras's
        return [*part._trainable_variables, *part._non_trainable_variables]
    return [*part._flatten(recursive=False, predicate=lambda each: hasattr(each, "handle"))]


def is_whole(side, network, names):
    """Return whether convert_weights.py finds all of a network's weights, as in usual layers, and by these names."""
    try:
        found = list_weights(side, network)
    except AttributeError:  # of a layer that has a name by which others are known, and not all that these have
        return False
    sizes = [
        sum(np.size(convert_weights.to_numpy(side.framework, array)) for _, array in pairs)
        for pairs in (found, list_weights(side, network, own=True))
    ]
    # As many by other names are the same in classes of other names, by which kernels of TensorFlow are told apart.
    return sizes[0] == sizes[1] and ([name for name, _ in found] == names or len(found) != len(names))


def list_own(framework, network):
    """Return [(whether it is a running average, array)] of all that a framework itself lists as a network's weights."""
    if framework == "pytorch":
        pairs = [(False, array) for array in network.parameters()] + [(True, array) for array in network.buffers()]
        return [pair for pair in pairs if pair[1].is_floating_point() and not pair[1].is_sparse_csr]
    if framework == "keras":
        return [(not each.trainable, each) for each in network.weights if "seed_generator" not in each.path]
    if framework == "tensorflow":
        variables = sorted(network.variables, key=lambda each: int(each._unique_id.rpartition("_")[2]))
        return [(not each.trainable, each) for each in variables]
    return sorted(walk(network), key=lambda pair: pair[0])


def walk(link):
    """Yield pairs as list_own returns them in the order in which a Chainer link was built; its own lists are sorted."""
    for name, value in vars(link).items():
        if name in link._params | link._persistent and np.ndim(getattr(value, "array", value)):
            yield name in link._persistent, value
        elif name in getattr(link, "_children", ()):
            yield from walk(value)
    for part in link if hasattr(link, "__iter__") else ():
        if hasattr(part, "_params"):  # what is no link is a function
            yield from walk(part)


class Context:
    """An exercise in a framework, its answer, and the inputs and weights that both sides are given."""

    def __init__(self, answer, folder):
        """answer is the answer's Side, folder one for files."""
        self.answer, self.exercise, self.folder = answer, answer.exercise, Path(folder)
        self.own = False  # whether weights are listed as the framework does, not by layer
        self.is_small = bool(answer.full)  # whether both sides have few channels
        self.references, self.expected = {}, {}
        rng = np.random.default_rng(5)
        size = SIZES.get(self.exercise.name, 16)
        inner = size - 184 if self.exercise.name == "unet" else size
        size = 32 if self.exercise.subject == "digits" else size
        self.images = rng.uniform(-1, 1, (NUMBER, size, size, 3))
        self.images[:, size // 2, size // 2] = 0  # whose planted logits are equal
        self.inputs = self.images[:3]
        classes = len(getattr(answer.module, "CLASSES", "12"))
        self.targets = rng.integers(0, classes, (NUMBER, inner, inner), np.uint8)
        self.classes = 1 if classes == 2 else classes  # channels of the logits

    def adapt(self, attempt):
        """Find out how an attempt is made: whether its channels can be few, and how its weights can be listed."""
        attempt.is_attempt = True
        self.answer.shrink(True)
        attempt.shrink(True)
        self.own, was, self.is_small = False, (self.own, self.is_small), bool(self.answer.full)
        with contextlib.suppress(Exception), silence():  # what is wrong is told by a check
            network = attempt.build(attempt.small())
            names = [name for name, _ in list_weights(self.answer, self.answer.build(self.answer.small()))]
            self.own = not is_whole(attempt, network, names)
            widest = max(max(array.shape, default=0) for _, array in list_weights(attempt, network, self.own))
            self.is_small = self.is_small and widest <= 64
        for side in (self.answer, attempt):
            side.shrink(self.is_small)
        if was != (self.own, self.is_small):
            self.expected.clear()
            self.references.clear()

    def expect(self, check):
        """Return what the answer computes in a check."""
        if check.name not in self.expected:
            self.expected[check.name] = observe(check, self.answer, self)
            if isinstance(self.expected[check.name], Failed):
                raise RuntimeError(f"{self.answer.path.name}: {check.name}: {self.expected[check.name]}")
        return self.expected[check.name]

    def find_reference(self, arguments):
        """Return {name: array}, the weights that both sides get, for a network of these options.

        Kernels are drawn, the others uniform.
        """
        if arguments not in self.references:
            network, rng = self.answer.build(self.answer.small(arguments=arguments), seed=3), np.random.default_rng(4)
            self.references[arguments] = {
                name: array if array.ndim > 1 else rng.uniform(0.5, 1.5, array.shape)
                for name, array in get_values(self.answer, list_weights(self.answer, network, self.own)).items()
            }
        return self.references[arguments]


def observe(check, side, context, as_graph=False):
    """Return what a side computes in a check, {what: numbers}, or a Failed with what is wrong.

    With TensorFlow, operations run one by one, since compiling graphs would take most of the time, but for as_graph.
    """
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.run_functions_eagerly(not as_graph)
    try:
        with silence():
            return check.observe(side, context)
    except Left as error:
        return error
    except Failed as error:
        return Failed(str(error).replace(f"{context.folder}{os.sep}", "the check's "))
    except Exception as error:
        text = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())[:300]  # of Keras, in lines and bold
        text = text.replace(f"{context.folder}{os.sep}", "the check's ").partition(" Arguments received by")[0]
        text = re.sub(r"\{\{.*?\}\} ?", "", text)  # TensorFlow's own names
        if isinstance(error, NotImplementedError):
            return Failed(text or "not written yet")
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(side.path)
        ]
        where = f" in line {lines[-1]}" if lines else ""
        words = set(re.findall(r"[a-z0-9]+", text.lower()))
        mixed = words >= TYPES or words >= {"float", "double"}
        return Failed(f"{type(error).__name__}{where}: {text}{ADVICE if mixed else ''}")


def compare(ours, theirs):
    """Return "" where two results of observe are the same, else in one line where they first differ."""
    if isinstance(ours, Failed) or isinstance(theirs, Failed):
        one, other = (re.sub(r" in line \d+", "", str(each)) for each in (ours, theirs))
        return "" if isinstance(theirs, Failed) and one == other else str(ours)
    for name, right in theirs.items():
        if name not in ours:
            return f"{name}: is missing"
        if isinstance(right, str | tuple | list) or right is None:
            if ours[name] != right:
                text = f"{name}: {ours[name]}, not {right}"
                return text + ADVICE * (set(re.findall("float32|float64", text)) == TYPES)
            continue
        mine, right = np.asarray(ours[name]), np.asarray(right)
        if mine.shape != right.shape:
            return f"{name}: the shape is {mine.shape}, not {right.shape}"
        if mine.dtype.kind not in "biuf":
            return f"{name}: {mine.dtype}, not numbers"
        mine, right = mine.astype(np.float64), right.astype(np.float64)
        with np.errstate(invalid="ignore"):
            difference = np.where((mine == right) | (np.isnan(mine) & np.isnan(right)), 0, np.abs(mine - right))
        difference = np.where(np.isnan(difference), np.inf, difference)
        scale = np.abs(right[np.isfinite(right)]).max(initial=1e-3)
        if difference.max(initial=0) > CLOSE * scale:
            place = np.unravel_index(difference.argmax(), difference.shape)
            at = f" at {[int(i) for i in place]}" if difference.ndim else ""
            if difference.ndim == 4 and name.startswith(("images", "targets", "logits")):  # the channels are last
                at = " at image {}, row {}, column {}, channel {} (from 0)".format(*map(int, place))
            digits = 6 if difference.max() > 1e-4 * scale else 12
            text = f"{name}{at}: {mine[place]:.{digits}g}, not {right[place]:.{digits}g}"
            if difference.size > 1:
                text += f"; {np.mean(difference > CLOSE * scale):.0%} of the values differ"
            is_rounded = digits > 6 and (mine == mine.astype(np.float32)).all()  # to single precision
            return text + ADVICE * bool(is_rounded)
    extra = [name for name in ours if name not in theirs]
    return f"{extra[0]}: is not in the answer" if extra else ""


# ---- networks ----


def build_fixed(side, context, arguments=(), **changes):
    """Return a network with the weights that both sides get, its weights as listed, and its options."""
    options = side.small(arguments=arguments, **changes)
    network = side.build(options)
    pairs, reference = list_weights(side, network, context.own), context.find_reference(arguments)
    shapes = ({name: tuple(map(int, array.shape)) for name, array in each} for each in (pairs, reference.items()))
    if difference := compare(*shapes):
        where = f"with {' '.join(arguments)}, " if arguments else ""
        raise Failed(f"{where}other parameters than the answer's: {difference}")
    for name, array in pairs:
        convert_weights.assign(side.framework, array, reference[name])
    return network, pairs, options


def get_values(side, pairs):
    """Return {name: array} of weights as listed, of this moment."""
    return {name: np.array(convert_weights.to_numpy(side.framework, array)) for name, array in pairs}


def is_running(name):
    """Return whether an array is a running average, which training does not set by gradients."""
    return name.endswith(RUNNING)


def find_parameters(side, context):
    """Return {name: shape}, and where both sides were given few channels, how many they have by themselves."""
    network = side.build(side.small())
    if not list_own(side.framework, network):
        raise Failed("build_network returns a network without weights: build it there, as by calling it once")
    shapes = [(name, tuple(map(int, array.shape))) for name, array in list_weights(side, network, context.own)]
    if not shapes:
        raise Failed("no weights are found in what build_network returns: is it a network of this framework?")
    return (side.full if context.is_small else {}) | dict(shapes)


def draw_weights(side, context):
    """Return {name: array} of the weights that are drawn from seed 0, and the first number that is drawn after them."""
    rng = np.random.default_rng(0)
    network = side.module.build_network(rng, side.small())
    if rng.bit_generator.state == np.random.default_rng(0).bit_generator.state:
        raise Failed("build_network draws nothing from rng, its first argument: let NumPy draw the weights")
    if not context.own and side.framework != "keras":  # where they are drawn when they are built, whatever holds them
        turns = find_turns(side, network)
        held = [turns.get(id(arrays[0]), 0) for _, arrays in convert_weights.find_layers(side.framework, network)]
        if held != sorted(held):
            side.notes["weights drawn"] = "; the network holds its layers in another order than data pass them"
    return get_values(side, list_weights(side, network, context.own)) | {"the next random number": rng.random()}


def predict(side, context, arguments=()):
    """Return a network's logits in test mode; by the answer's own way where it teaches none."""
    network, _, options = build_fixed(side, context, arguments)
    if hasattr(context.answer.module, "predict"):
        return side.module.predict(network, context.inputs, options)
    return side.to_array(run(side, network, side.to_tensor(context.inputs), training=False))


def run(side, network, images, training):
    """Return the output of a network in training or in test mode."""
    if side.framework == "pytorch":
        return network.train(training)(images)
    if side.framework == "chainer":
        with sys.modules["chainer"].using_config("train", training):
            return network(images)
    return network(images, training=training)


def predict_all(side, context):
    """Return the logits in test mode."""
    return {"logits": predict(side, context)}


def predict_variants(side, context):
    """Return the logits in test mode of the networks that options make of it."""
    results = {}
    for name, values in context.exercise.network_options.items():
        for value in values[1:3]:
            arguments = (f"--{name}", *value.split())
            results[f"logits with {' '.join(arguments)}"] = predict(side, context, arguments)
    return results


def run_training_mode(side, context):
    """Return the logits in training mode, the network's weights as listed after it, and their names."""
    network, pairs, _ = build_fixed(side, context)
    logits = run(side, network, side.to_tensor(context.inputs), training=True)
    return {"logits": side.to_array(logits)}, get_values(side, pairs)


def find_training_logits(side, context):
    """Return the logits in training mode."""
    return run_training_mode(side, context)[0]


def find_averages(side, context):
    """Return the running averages after a pass in training mode."""
    return {name: array for name, array in run_training_mode(side, context)[1].items() if is_running(name)}


def find_loss(side, context):
    """Return the loss of random logits, and of some so large that a softmax or sigmoid in single steps overflows."""
    rng = np.random.default_rng(6)
    logits, targets = (
        rng.normal(0, 3, (2, 6, 7, context.classes)),
        rng.integers(0, max(2, context.classes), (2, 6, 7, 1), np.uint8),
    )
    results = {}
    for name, factor in (("loss", 1), ("loss of logits in the hundreds", 100)):
        loss = side.module.compute_loss(side.to_tensor(factor * logits), side.to_tensor(targets))
        results[name] = side.to_array(loss)
    return results


def save_and_load(side, context):
    """Return a network's weights after they were saved, and loaded into another network."""
    network, _, options = build_fixed(side, context)
    with tempfile.TemporaryDirectory() as folder:
        side.module.save_weights(network, Path(folder))
        other = side.build(options, seed=1)
        side.module.load_weights(other, Path(folder))
        return get_values(side, list_weights(side, other, context.own))


# ---- the exercises on newts ----


def write_newts(folder):
    """Write three images with their masks, in folders and formats as in Dataset; red is 127 or 128.

    Their sizes are no multiples of one another. Pillow and OpenCV read the same from such JPEG files.
    """
    rng = np.random.default_rng(1)
    for number, (height, width) in enumerate(((50, 75), (61, 43), (40, 40))):
        image, mask = rng.integers(0, 256, (height, width, 3), np.uint8), np.zeros((height, width, 3), np.uint8)
        shade = 127 + number % 2
        mask[5:30, 4:22], mask[20:37, 24:39] = (shade, 0, 0), (0, shade, 0)
        kind = "akahara" if number < 2 else "madara"
        for part, suffix, array in (("images", "jpg", image), ("seg_images", "png", mask)):
            path = folder / part / kind / f"newt_{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), array[..., ::-1])


def read_newts(side, context):
    """Return what is read of three images and masks."""
    if not (context.folder / "images").exists():
        write_newts(context.folder)
    size = 208 if context.exercise.name == "unet" else 24
    side.options()
    try:
        with silence():
            names, images, targets = side.module.load_newts(context.folder, size)
    except Failed as error:
        raise Failed(f"{error}; in the check's masks red and green are 127, or in newt_1 128") from error
    stems = [Path(name).stem for name in names]
    return {"names": stems, "images": images, "targets": targets, "the type of targets": str(targets.dtype)}


def read_unknown(side, context):
    """Return what becomes of a mask with one pixel of a colour that is no class's."""
    side.options()
    folder = context.folder / "unknown"
    path = folder / "seg_images/akahara/newt_1.png"
    if not folder.exists():
        write_newts(folder)
        mask = cv2.imread(str(path))
        mask[0, 0] = 200
        cv2.imwrite(str(path), mask)
    outcome = "taken"
    try:
        with silence():
            side.module.load_newts(folder, 208 if context.exercise.name == "unet" else 24)
    except Exception as error:
        outcome = "refused by name" if path.stem in str(error) else "refused without its name"
    return {"a mask with one pixel of an unknown colour": outcome}


def take(batches, options):
    """Return batches as a list: one more than there should be at most, since they may have no end."""
    return list(itertools.islice(batches, options.iterations + 1))


def draw_newts(side, context, kind="flips"):
    """Return batches of three epochs and more, and the first random number that is drawn after them."""
    options, rng = side.small(augment=kind, iterations=8), np.random.default_rng(2)
    targets = context.targets[:, :12, :12] if context.exercise.name == "unet" else context.targets
    images = context.images[:, :20, :20].copy()  # which an attempt may change in place
    batches = take(side.module.draw_batches(images, targets.copy(), options, rng), options)
    results = {"number of batches": len(batches)}
    for number, batch in enumerate(batches, start=1):
        results |= {f"images of batch {number}": batch[0], f"targets of batch {number}": batch[1]}
    return results | {"the next random number": rng.random()}


def draw_mirrored(side, context, kind="flips"):
    """Return what holds of the batches by whatever random numbers the images are shuffled and mirrored."""
    if context.exercise.name not in MIRRORED:
        return draw_newts(side, context)
    options, ways = side.small(augment=kind, iterations=100), list(itertools.product((1, -1), repeat=2))
    images, targets = context.images, context.targets
    runs = [
        take(side.module.draw_batches(images.copy(), targets.copy(), options, np.random.default_rng(seed)), options)
        for seed in (2, 2, 3)
    ]
    if len(runs[0]) != options.iterations:
        return {"number of batches": len(runs[0])}
    known = {images[i][::y, ::x].tobytes(): (i, y, x) for i in range(NUMBER) for y, x in ways}
    drawn, alike, shapes = [], [], set()
    for batch in runs[0]:
        shapes.add((np.shape(batch[0]), str(batch[0].dtype), np.shape(batch[1]), str(batch[1].dtype)))
        for image, target in zip(*batch, strict=False):
            i, y, x = known.get(np.ascontiguousarray(image).tobytes(), (-1, 1, 1))
            drawn.append((i, y, x))
            alike.append(np.array_equal(np.squeeze(target), targets[i][::y, ::x]))
    results = {"number of batches": len(runs[0])} | {
        f"{name} of a batch": " and ".join(sorted({f"{each[at]} {each[at + 1]}" for each in shapes}))
        for at, name in ((0, "images"), (2, "targets"))
    }
    order, down, right = np.array(drawn).T
    if (order < 0).any():
        return results | {"images": "some neither as given nor mirrored"}
    results["images"] = "all as given or mirrored"
    epochs, whole = order[: len(order) // NUMBER * NUMBER].reshape(-1, NUMBER), NUMBER - NUMBER % BATCH
    blocks = order[: len(order) // whole * whole].reshape(-1, whole)
    is_dropped = all(len(set(block)) == whole for block in blocks)
    once, rest = "once in an epoch", "put into the next batch"
    if any(len(set(epoch)) < NUMBER for epoch in epochs):
        once, rest = (once, "dropped") if is_dropped else ("some twice in an epoch", rest)
    shuffled = "in the order of the first" if (epochs == epochs[0]).all() else "reshuffled"
    if (epochs == np.arange(NUMBER)).all():
        shuffled = "in the order given"
    mirrored, anew = [way for _, *way in drawn], "for each image anew"
    if all(mirrored[i : i + BATCH] == BATCH * mirrored[i : i + 1] for i in range(0, len(drawn), BATCH)):
        anew = "not at all" if mirrored == len(drawn) * mirrored[:1] else "once for a whole batch"
    elif len(set(drawn)) == NUMBER:
        anew = "once for all epochs"
    shares = {
        "up-down": np.mean(down < 0),
        "left-right": np.mean(right < 0),
        "in one of the two ways alone": np.mean(down != right),
    }
    same = [all(np.array_equal(a[0], b[0]) for a, b in zip(runs[0], run, strict=False)) for run in runs[1:]]
    return results | {
        "each image": once,
        "what is left of an epoch and fills no batch": rest,
        "each epoch": shuffled,
        "targets": "mirrored as the images" if all(alike) else "not all mirrored as the images",
        "the mirrorings are drawn": anew,
        **{f"mirrored {name}": "half" if 0.3 < share < 0.7 else f"{share:.0%}" for name, share in shares.items()},
        "again from the same seed": "the same" if same[0] else "others (draw all from rng)",
        "from another seed": "the same" if same[1] else "others",
    }


def draw_turned(side, context):
    """Return batches of images that are turned, scaled and shifted, and of those that stay as they are."""
    if context.exercise.name in MIRRORED:
        flips, answers = (draw_newts(each, context) for each in (side, context.answer))
        other = compare(flips, answers) and "; its random numbers are others than the answer's, and so are its batches"
        if other or not compare(draw_newts(side, context, "affine"), flips):
            raise Left(f"not asked for here, where images are mirrored alone{other}")
    return {
        f"{name}, {kind}": each for kind in ("affine", "none") for name, each in draw_newts(side, context, kind).items()
    }


def make_tensors(side, context):
    """Return a batch of images and one of targets as tensors, with the framework's own order of axes."""
    rng = np.random.default_rng(3)
    side.options()
    results = {}
    for name, array in (("images", rng.random((2, 4, 5, 3))), ("targets", rng.integers(0, 3, (2, 4, 5, 1), np.uint8))):
        tensor = side.to_tensor(array)
        array = tensor.numpy() if hasattr(tensor, "numpy") else np.asarray(getattr(tensor, "array", tensor))
        results |= {name: array, f"the type of {name}": str(array.dtype)}
    return results


def find_rates(side, context):
    """Return the learning rates of a whole run of 40 iterations, and of one of 7."""
    runs = {length: side.small(iterations=length, lr=0.5) for length in (40, 7)}
    return {
        f"learning rate of {length} iterations": np.array(
            [side.module.learning_rate(i, options) for i in range(length)]
        )
        for length, options in runs.items()
    }


def take_step(side, context):
    """Return what one training step at a learning rate of 0.1 changes, over that rate: the gradients, by layer."""
    network, pairs, options = build_fixed(side, context, iterations=1, lr=0.1)
    before = get_values(side, pairs)
    losses = side.module.train(network, context.images, context.targets, options, np.random.default_rng(6))
    if losses is None:
        raise Failed("train returns nothing: return the loss of each step")
    after = get_values(side, pairs)
    results = {"number of losses": len(losses), "loss": float(losses[0])}
    return results | {
        f"gradient of {name}": 10 * (before[name] - after[name]) for name in before if not is_running(name)
    }


def train_newts(side, context):
    """Return the first losses of a training from weights drawn from seed 0."""
    options = side.small(augment="flips", lr=0.05)
    rng = np.random.default_rng(options.seed)
    network = side.module.build_network(rng, options)
    losses = side.module.train(network, context.images, context.targets, options, rng)
    return {f"loss {number}": float(loss) for number, loss in enumerate(losses, start=1)}


def find_test_loss(side, context):
    """Return what test returns: the loss on images that training has not seen."""
    network, _, options = build_fixed(side, context)
    names = [f"newt_{i}" for i in range(NUMBER)]
    return dict(side.module.test(network, names, context.images, context.targets, options))


def plant_predictions(side, context, images, targets, slope=0):
    """Return the measures of test, and the images that it saves, for logits that are made of each pixel alone.

    With a slope they depend on where the pixel is, too, so that a turned or mirrored image has others.
    """
    margin = (images.shape[1] - targets.shape[1]) // 2
    matrix = np.random.default_rng(8).normal(0, 0.4, (3, context.classes))

    def predict(network, images, options):
        images = images[:, margin : images.shape[1] - margin, margin : images.shape[2] - margin]
        y, x = np.meshgrid(*2 * [np.linspace(-1, 1, images.shape[1])], indexing="ij")
        places = y + 3 * y**3 * x  # whose mean over fewer than all eight views is not that over all
        return images @ matrix + slope * places[..., None] * (-1.0) ** np.arange(context.classes)

    network, _, options = build_fixed(side, context)
    original, side.module.predict = side.module.predict, predict
    try:
        with tempfile.TemporaryDirectory() as folder:
            options.out = Path(folder)
            names = [f"newt_{i}" for i in range(len(images))]
            results = flatten(side.module.test(network, names, images, targets, options))
            return results | read_predictions(options.out)
    finally:
        side.module.predict = original


def flatten(measures):
    """Return nested measures as {"iou newt": number}."""
    results = {}
    for name, value in measures.items():
        if isinstance(value, dict):
            results |= {f"{name} of {each}": number for each, number in value.items()}
        else:
            results[name] = value
    return results


def measure_newts(side, context):
    """Return the measures of planted predictions."""
    return plant_predictions(side, context, context.images, context.targets)


def measure_absent(side, context):
    """Return the measures of predictions and targets that are background alone."""
    return flatten(side.module.measure(*np.zeros((2, 1, 4, 4), np.uint8)))


def test_newts(side, context):
    """Return the measures of predictions that depend on how an image is turned, which the eight views even out."""
    return plant_predictions(side, context, context.images, context.targets, slope=1)


# ---- the exercises on digits ----


def make_sources():
    """Return digits (7, 14, 14) from 0 to 1, and photographs (3, 50, 60, 3) uint8."""
    rng = np.random.default_rng(1)
    return rng.random((7, 14, 14)), rng.integers(0, 256, (3, 50, 60, 3), np.uint8)


def load_digits(side, context):
    """Return the digits and photographs of scikit-learn, and those of a file."""
    path, rng = context.folder / "digits.npz", np.random.default_rng(1)
    arrays = {"digits": rng.integers(0, 256, (10, 28, 28), np.uint8), "photographs": make_sources()[1]}
    np.savez(path, **arrays)
    results = {}
    for source, data in (("scikit-learn", None), ("--data", path)):
        for part, (digits, photographs) in side.module.load_data(side.options(data=data)).items():
            results |= {f"{part} digits of {source}": digits, f"{part} photographs of {source}": photographs}
    return results


def make_pictures(side, context):
    """Return images, their masks, and the first random number that is drawn after them."""
    rng = np.random.default_rng(2)
    side.options()
    images, masks = side.module.make_pictures(*make_sources(), 6, rng)
    return {
        "images": images,
        "masks": masks,
        "the type of masks": str(masks.dtype),
        "the next random number": rng.random(),
    }


def normalise(side, context):
    """Return normalised images, one of them plain."""
    images = np.random.default_rng(3).random((3, 32, 32, 3)) * np.array([1, 0.1, 0]).reshape(3, 1, 1, 1) + 0.25
    return {"normalised images": side.module.normalise(images)}


def draw_digits(side, context):
    """Return some batches."""
    options, rng = side.small(), np.random.default_rng(2)
    batches = take(side.module.draw_batches(*make_sources(), options, rng), options)
    results = {"number of batches": len(batches)}
    for number, (images, masks) in enumerate(batches):
        results |= {f"images of batch {number}": images, f"masks of batch {number}": masks}
    return results


def draw_dropout(side, context):
    """Return the arrays that dropout multiplies by, and the first random number that is drawn after them."""
    rng = np.random.default_rng(4)
    arrays = side.module.draw_dropout(side.small(keep=0.6, channels=[3, 5]), rng)
    return {f"array {i}": array for i, array in enumerate(arrays)} | {"the next random number": rng.random()}


def train_digits(side, context):
    """Return the first losses of a training from weights drawn from seed 0, and the evaluation after it."""
    options = side.small(keep=0.7)
    rng = np.random.default_rng(options.seed)
    network = side.module.build_network(rng, options)
    exam = context.answer.module.make_pictures(*make_sources(), 3, np.random.default_rng(5))
    losses, evaluations = side.module.train(network, make_sources(), exam, options, rng)
    results = {f"loss {number}": float(loss) for number, loss in enumerate(losses, start=1)}
    return results | {"iteration, loss and IoU of the last evaluation": np.array(evaluations[-1], np.float64)}


def evaluate_digits(side, context):
    """Return loss and IoU on a batch."""
    network, _, options = build_fixed(side, context)
    images, masks = context.answer.module.make_pictures(*make_sources(), 4, np.random.default_rng(5))
    loss, iou = side.module.evaluate(network, images, masks, options)
    return {"loss": float(loss), "IoU of the digit": float(iou)}


def measure_digits(side, context):
    """Return the measures of random predictions, and those of test for predictions of each pixel alone."""
    rng = np.random.default_rng(6)
    predictions, masks = (rng.random((2, 4, 32, 32, 1)) < np.array([0.1, 0.5, 0.9, 0.3]).reshape(4, 1, 1, 1)).astype(
        np.uint8
    )
    results = {"mean IoU of the digit": side.module.mean_digit_iou(predictions, masks)}
    network, _, options = build_fixed(side, context)
    images, masks = context.answer.module.make_pictures(*make_sources(), 4, np.random.default_rng(5))
    return results | plant_digits(side, network, options, images, masks)


def plant_digits(side, network, options, images, masks):
    """Return the measures of test for planted predictions, and the predictions that it saves."""
    original, side.module.predict = side.module.predict, lambda _, images, __: 0.3 * images[..., :1] + 0.1
    try:
        with tempfile.TemporaryDirectory() as folder:
            options.out = Path(folder)
            results = flatten(side.module.test(network, images, masks, options))
            return results | read_predictions(options.out)
    finally:
        side.module.predict = original


def to_dense(matrix):
    """Return a sparse or dense matrix as an array."""
    return matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)


def connect(side, context):
    """Return the edges of a grid of 4 x 5, in order."""
    edges = {n: np.asarray(side.module.connect(4, 5, n)) for n in (4, 8)}
    return {f"edges with {n} neighbours": each[np.lexsort(each.T[::-1])] for n, each in edges.items()}


def make_graph(context):
    """Return edges, weights and adjacency of a grid of 4 x 5, as the answer has them."""
    edges = context.answer.module.connect(4, 5, 8)
    weights = np.random.default_rng(1).uniform(0.5, 1.5, len(edges))
    return edges, weights, context.answer.module.make_adjacency(edges, weights, 20)


def make_adjacency(side, context):
    """Return an adjacency matrix."""
    edges, weights, _ = make_graph(context)
    return {"adjacency matrix": to_dense(side.module.make_adjacency(edges, weights, 20))}


def make_laplacians(side, context):
    """Return both Laplacians of a graph."""
    kinds = ("normalised", "combinatorial")
    return {f"{kind} Laplacian": to_dense(side.module.make_laplacian(make_graph(context)[2], kind)) for kind in kinds}


def find_eigenvectors(side, context):
    """Return the smallest eigenvalues, and each eigenvector times itself, in which its sign does not count."""
    values, vectors = side.module.find_eigenvectors(
        context.answer.module.make_laplacian(make_graph(context)[2], "normalised"), 3
    )
    return {
        "eigenvalues": values,
        "products of the entries of each eigenvector": np.einsum("ik,jk->kij", vectors, vectors),
    }


def weigh_edges(side, context):
    """Return the weights of the edges of an image."""
    image = np.random.default_rng(2).random((4, 5, 3))
    return {"weights of the edges": side.module.weigh_edges(image, make_graph(context)[0])}


def cut_images(side, context):
    """Return the Fiedler vector, at a largest entry of 1, and the cut, of two images by each Laplacian."""
    images, results = context.answer.module.make_pictures(*make_sources(), 2, np.random.default_rng(3))[0], {}
    for kind in ("normalised", "combinatorial"):
        for i, image in enumerate(images):
            vector, digit = side.module.segment(image[:12, :14], side.options(laplacian=kind))
            results |= {f"{kind} vector of image {i}": vector / np.abs(vector).max(), f"{kind} cut of image {i}": digit}
    return results


def multiply(side, context):
    """Return a sparse matrix times the features of a batch."""
    side.options()
    images = np.random.default_rng(4).random((2, 4, 5, 3))
    features = side.module.to_features(side.to_tensor(images))
    matrix = sparse.triu(make_graph(context)[2]).tocsr()  # not symmetric, so that its transpose is another
    product = side.module.multiply(side.module.to_sparse(matrix, "cpu"), features)
    return {"features": side.to_array(features), "the matrix times the features": side.to_array(product)}


def make_propagation(side, context):
    """Return the matrix that a layer multiplies by, of Kipf and Welling and of Chebyshev."""
    adjacency = make_graph(context)[2]
    return {f"matrix of order {order}": to_dense(side.module.make_propagation(adjacency, order)) for order in (1, 3)}


def compute_single(side, context):
    """Return the types of images and weights in single precision, in which an attempt runs by itself; train a step."""
    side.module.FLOAT = "float32"
    try:
        options, rng = side.small(iterations=1), np.random.default_rng(0)
        if context.exercise.subject == "digits":
            data = side.module.load_data(options)["train"]
            exam = [side.module.make_pictures(*data, options.batch, rng)]
        else:
            (_, *data), exam = side.module.load_newts(context.folder, options.size), []
        images = take(side.module.draw_batches(*data, options, rng), options)[0][0]
        results = {"the type of images": str(images.dtype)}
        if context.answer.has("train"):
            network = side.build(options)
            arrays = [convert_weights.to_numpy(side.framework, each[1]) for each in list_own(side.framework, network)]
            results["the types of weights"] = ", ".join(sorted({str(array.dtype) for array in arrays}))
            side.module.train(network, *([data] if exam else data), *exam, options, rng)
        return results
    finally:
        side.module.FLOAT = "float64"
        side.options()


def read_predictions(out):
    """Return {name: image} of the predictions in a folder, and the names of the pictures."""
    paths = sorted(out.glob("predictions/*.png"))
    results = {f"predictions/{path.name}": cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths}
    return results | {"names of pictures": sorted(path.name for path in out.glob("pictures/*.png"))}


def find_options(side, context):
    """Return the value that each option has by default."""
    options = vars(side.options())
    return {f"--{name}": str(value) for name, value in options.items() if name not in ("data", "out", "device")}


NETWORK = [
    Check("parameters", ("build_network",), (), find_parameters),
    Check("weights drawn", ("build_network",), ("parameters",), draw_weights),
    Check("logits in test mode", ("build_network",), ("parameters",), predict_all),
    Check("logits by option", ("build_network",), ("logits in test mode",), predict_variants),
]
LOSS = Check("loss", ("compute_loss",), (), find_loss)
SAVED = Check("weights saved and loaded", ("save_weights", "load_weights"), ("parameters",), save_and_load)
CHECKS = {
    "semaseg": [
        Check("options", ("read_options",), (), find_options),
        Check("images and targets", ("load_newts",), (), read_newts),
        Check("unknown colours", ("load_newts",), ("images and targets",), read_unknown),
        Check("batches", ("draw_batches",), (), draw_mirrored),
        Check("batches by augmentation", ("draw_batches",), ("batches",), draw_turned),
        Check("tensors", ("to_tensor",), (), make_tensors),
        *NETWORK,
        Check("logits in training mode", ("build_network",), ("logits in test mode",), find_training_logits),
        Check("running averages", ("build_network",), ("logits in training mode",), find_averages),
        LOSS,
        Check("learning rate", ("learning_rate",), (), find_rates),
        Check(
            "one step",
            ("train",),
            ("logits in training mode", "loss", "learning rate", "batches", "tensors"),
            take_step,
        ),
        Check("first losses", ("train",), ("weights drawn", "one step", "learning rate"), train_newts),
        SAVED,
        Check(
            "single precision",
            ("load_newts", "draw_batches"),
            ("images and targets", "batches", "tensors", "first losses"),
            compute_single,
        ),
        Check("test", ("test",), ("logits in test mode", "loss", "tensors"), find_test_loss),
        Check("measures", ("test",), ("parameters",), measure_newts),
        Check("measures of an absent class", ("measure",), ("measures",), measure_absent),
        Check("test-time augmentation", ("test",), ("measures",), test_newts),
    ],
    "digits": [
        Check("options", ("read_options",), (), find_options),
        Check("digits and photographs", ("load_data",), (), load_digits),
        Check("images and masks", ("make_pictures",), (), make_pictures),
        Check("normalised images", ("normalise",), (), normalise),
        Check("batches", ("draw_batches",), ("images and masks", "normalised images"), draw_digits),
        Check("tensors", ("to_tensor",), (), make_tensors),
        Check("edges", ("connect",), (), connect),
        Check("adjacency", ("make_adjacency",), (), make_adjacency),
        Check("Laplacians", ("make_laplacian",), (), make_laplacians),
        Check("eigenvectors", ("find_eigenvectors",), (), find_eigenvectors),
        Check("weights of edges", ("weigh_edges",), (), weigh_edges),
        Check(
            "cuts", ("segment",), ("edges", "adjacency", "Laplacians", "eigenvectors", "weights of edges"), cut_images
        ),
        Check("products", ("to_sparse", "to_features", "multiply"), ("tensors",), multiply),
        Check("propagation", ("make_propagation",), ("Laplacians",), make_propagation),
        Check("dropout", ("draw_dropout",), (), draw_dropout),
        *NETWORK,
        LOSS,
        Check(
            "first losses",
            ("train",),
            ("weights drawn", "logits in test mode", "loss", "batches", "dropout"),
            train_digits,
        ),
        SAVED,
        Check("single precision", ("load_data", "draw_batches"), ("batches", "first losses"), compute_single),
        Check("evaluation", ("evaluate",), ("logits in test mode", "loss"), evaluate_digits),
        Check("measures", ("test", "mean_digit_iou"), ("parameters",), measure_digits),
    ],
}


def list_checks(answer):
    """Return the checks of an exercise: those whose functions its answer, a Side, has."""
    is_left_out = {
        "test": answer.exercise.predicts,
        "measures": not answer.exercise.predicts,
        "measures of an absent class": not answer.exercise.predicts,
        "test-time augmentation": not answer.exercise.predicts,
        "logits by option": not answer.exercise.network_options,
    }
    checks = [check for check in CHECKS[answer.exercise.subject] if all(answer.has(name) for name in check.calls)]
    checks = [check for check in checks if not is_left_out.get(check.name)]
    names = {check.name for check in checks}
    return [check._replace(needs=tuple(name for name in check.needs if name in names)) for check in checks]
