"""Turn the weights that an answer saved in one framework into those of the same exercise in another.

    python tools/convert_weights.py outputs/11_unetlike_pytorch outputs/converted_keras
    python Question_semaseg/answers/11_unetlike_keras.py --test --out outputs/converted_keras

FROM is a folder that an answer has written, by its --out or outputs/<script>. TO is made if need be, and may not hold
a run; its name ends in the framework that it is for, or --framework tells. Each framework loads and saves its own file
by the answer's own functions, in a process of its own; between them the numbers lie in one common layout: kernels
(out, in, height, width), and (out, in) where a layer multiplies by a matrix. Options that change the network, such as
--order 3 or --channels 20 24 16, are read from the metrics.json of FROM.
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit("convert_weights.py: interrupted"))

import numpy as np
from exercises import FRAMEWORKS, answer_path, build_network, load_answer, read_exercises

# The common layout of each kind of kernel, as axes of each framework's own.
AXES = {
    "pytorch": {"conv": (0, 1, 2, 3), "transposed": (1, 0, 2, 3), "linear": (0, 1)},
    "tensorflow": {"conv": (3, 2, 0, 1), "transposed": (2, 3, 0, 1), "linear": (1, 0)},
    "keras": {"conv": (3, 2, 0, 1), "transposed": (2, 3, 0, 1), "linear": (1, 0)},
    "chainer": {"conv": (0, 1, 2, 3), "transposed": (1, 0, 2, 3), "linear": (0, 1)},
}


def stop(message):
    """End with one line and status 2."""
    print(f"convert_weights.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_metrics(folder):
    """Return the exercise, the framework and {option: [values]} of what an answer has written to a folder.

    Only the options that change the network count. A metrics.json may come from anyone, and what it names is imported
    and run: so its answer must be one of exercises.toml to the letter. ValueError, which names the file, where it is
    not, where there is no such file, or where a value is none of an option.
    """
    path = folder / "metrics.json"
    answers = {f"{each.stem}_{framework}": (each, framework) for each in read_exercises() for framework in FRAMEWORKS}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        answer, trained_with = str(metrics["answer"]), dict(metrics.get("options", {}))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read, or does not name an answer") from error
    if answer not in answers:
        raise ValueError(f"{path}: answer {answer[:60]!r}: there is no such answer")
    exercise, framework = answers[answer]
    options = {}
    for name in [name for name in exercise.network_options if name in trained_with]:
        options[name] = re.sub(r"[\[\](),]", " ", str(trained_with[name])).split()  # of "[7, 5]" or "(7, 5)": 7 5
        if not options[name] or not all(re.fullmatch(r"[A-Za-z0-9_]+", value) for value in options[name]):
            raise ValueError(f"{path}: options: {name} {str(trained_with[name])[:60]!r}: not a value of an option")
    return exercise, framework, options


def list_arguments(exercise, network_options):
    """Return the command line of those of the options {option: [values]} that are not an answer's own defaults."""
    arguments = []
    for name, values in network_options.items():
        if values != exercise.network_options[name][0].split():
            arguments += [f"--{name}", *values]
    return arguments


def find_layers(framework, part):
    """Yield (kind, arrays) of each layer with weights, in the order of the network.

    kind is "conv", "transposed", "linear" or "norm"; arrays are the framework's own: kernel and bias, None where there
    is none, of the first three; gamma, beta, running mean and running variance of the last.
    """
    if framework == "pytorch":
        for layer in part.modules():
            names = [base.__name__ for base in type(layer).__mro__]  # an answer may have made a layer its own
            if "Conv2d" in names or "ConvTranspose2d" in names:
                yield "conv" if "Conv2d" in names else "transposed", (layer.weight, layer.bias)
            elif "Linear" in names:
                yield "linear", (layer.weight, layer.bias)
            elif "BatchNorm2d" in names:
                yield "norm", (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    elif framework == "keras":
        for layer in sorted(part._flatten_layers(include_self=False, recursive=False), key=find_turn):
            names = [base.__name__ for base in type(layer).__mro__]  # an answer may have made a layer its own
            if "Conv2D" in names or "Conv2DTranspose" in names:
                yield "conv" if "Conv2D" in names else "transposed", (layer.kernel, layer.bias)
            elif "BatchNormalization" in names:
                yield "norm", (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
            elif hasattr(layer, "kernel"):
                yield "linear", (layer.kernel, layer.bias)
            else:  # a model or a layer that has layers of its own, or one without weights
                yield from find_layers(framework, layer)
    elif isinstance(part, list | tuple):
        for item in part:
            yield from find_layers(framework, item)
    elif framework == "tensorflow" and hasattr(part, "trainable_variables") and hasattr(part, "submodules"):
        norms = (["gamma", "beta", "mean", "variance"], ["weight", "bias", "running_mean", "running_var"])
        [names, *_] = [each for each in norms if all(hasattr(part, name) for name in each)] or [None]
        if names:
            yield "norm", tuple(getattr(part, name) for name in names)
        elif hasattr(part, "kernel") or hasattr(part, "weight"):
            kernel = part.kernel if hasattr(part, "kernel") else part.weight
            kind = "transposed" if type(part).__name__ == "TransposedConv" else "conv"
            yield "linear" if len(kernel.shape) == 2 else kind, (kernel, getattr(part, "bias", None))
        else:
            for name, item in vars(part).items():  # in the order in which the network was built
                if not name.startswith("_"):
                    yield from find_layers(framework, item)
    elif framework == "chainer" and hasattr(part, "cleargrads"):
        if hasattr(part, "W"):
            transposed = any(base.__name__ == "Deconvolution2D" for base in type(part).__mro__)
            kind = "transposed" if transposed else "conv"
            yield "linear" if part.W.ndim == 2 else kind, (part.W, part.b)
        elif hasattr(part, "gamma"):
            yield "norm", (part.gamma, part.beta, part.avg_mean, part.avg_var)
        else:
            is_list = hasattr(part, "__iter__")
            for item in part if is_list else [vars(part)[name] for name in vars(part) if name in part._children]:
                yield from find_layers(framework, item)


def find_turn(layer):
    """Return when a Keras layer took part in building its network: the number of the first tensor that it made.

    network.layers has them by their distance from the output, so that the branches of a block may change places. In a
    network that is a class of its own they have made no tensors, and are in order.
    """
    if not layer._inbound_nodes:
        return 0
    [tensor, *_] = layer._inbound_nodes[0].output_tensors
    return int(tensor.name.rpartition("_")[2]) if tensor.name[-1].isdigit() else 0


def to_numpy(framework, array):
    """Return a framework's array as NumPy's."""
    if framework == "pytorch":
        return array.detach().cpu().numpy()
    return np.asarray(getattr(array, "array", array) if framework == "chainer" else array)


def assign(framework, array, new):
    """Give a framework's array the values of a NumPy array of its shape."""
    new = np.ascontiguousarray(new)
    if framework == "pytorch":
        array.data.copy_(type(array.data)(new))
    elif framework == "chainer":
        getattr(array, "array", array)[...] = new
    else:
        array.assign(new)


def name_arrays(layers):
    """Yield (name, kind, array) of each array of what find_layers yields, such as "norm 3 gamma", by kind from 0."""
    counts = dict.fromkeys(("conv", "transposed", "linear", "norm"), 0)
    for kind, arrays in layers:
        names = ("gamma", "beta", "mean", "variance") if kind == "norm" else ("kernel", "bias")
        for name, array in zip(names, arrays, strict=True):
            if array is not None:
                yield f"{kind} {counts[kind]} {name}", kind, array
        counts[kind] += 1


def get_weights(framework, network):
    """Return {name: array} of a network's weights and running averages in the common layout, as NumPy arrays."""
    weights = {}
    for name, kind, array in name_arrays(find_layers(framework, network)):
        array = to_numpy(framework, array)
        weights[name] = array.transpose(AXES[framework][kind]) if name.endswith("kernel") else array
    return weights


def list_weights(answer, framework, network):
    """Return {name: array} as get_weights does, by the names of the published weights where an answer knows these."""
    return answer.list_entries(network) if hasattr(answer, "list_entries") else get_weights(framework, network)


def set_weights(framework, network, weights):
    """Give a network the weights that get_weights returned; ValueError where they are those of another network."""
    own = {name: array.shape for name, array in get_weights(framework, network).items()}
    if own != {name: array.shape for name, array in weights.items()}:
        raise ValueError
    for name, kind, array in name_arrays(find_layers(framework, network)):
        new = weights[name].transpose(np.argsort(AXES[framework][kind])) if name.endswith("kernel") else weights[name]
        assign(framework, array, new)


def count_classes(folder):
    """Return how many classes the measures in metrics.json are of; 7 where there are none."""
    iou = json.loads((folder / "metrics.json").read_text(encoding="utf-8")).get("iou")
    return len(iou) if isinstance(iou, dict) else 7


def run_child(part, exercise, framework, folder, numbers, arguments, classes):
    """Export to, or import from, an .npz file of numbers, in a process that sees this one framework.

    classes counts where an answer takes their number from its data.
    """
    script = answer_path(exercise, framework)
    sys.argv = [str(script), "--device", "cpu", *arguments]
    answer = load_answer(script)
    options = answer.read_options()
    network = build_network(answer, np.random.default_rng(0), options, classes)
    place = folder / getattr(answer, "WEIGHTS", "")  # a file where an answer gives it a name, else the folder
    if part == "export":
        answer.load_weights(network, place)
        np.savez(numbers, **get_weights(framework, network))
        return
    with np.load(numbers) as saved:
        try:
            set_weights(framework, network, dict(saved))
        except ValueError:
            stop(f"{script.name}: its network is another than the one whose weights FROM has")
    try:
        answer.save_weights(network, place)
        metrics = {"answer": script.stem}
        metrics["options"] = {name: str(vars(options)[name]) for name in exercise.network_options}
        text = json.dumps(metrics, indent=2) + "\n"
        answer.write_whole(folder / "metrics.json", lambda part: part.write_text(text, encoding="utf-8"))
    except OSError as error:
        stop(f"{error}: choose another folder for TO")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.error = stop
    parser.add_argument("source", metavar="FROM", type=Path, help="folder that holds the weights")
    parser.add_argument("target", metavar="TO", type=Path, help="folder to write the converted weights to")
    parser.add_argument("--framework", choices=FRAMEWORKS, help="of TO (by default the end of its name)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    try:
        names = dict.fromkeys(name for exercise in read_exercises() for name in exercise.network_options)
    except ValueError as error:  # exercises.toml is malformed
        stop(error)
    for name in names:
        parser.add_argument(f"--{name}", nargs="+", metavar="...", help="as FROM was trained with (read from FROM)")
    options = parser.parse_args()
    source, target = options.source, options.target
    try:
        exercise, source_framework, network_options = read_metrics(source)
    except ValueError as error:
        stop(f"{error}: FROM must be a folder that an answer has written")
    if not exercise.trains:
        stop(f"{source}: is of {exercise.name}, which trains no network of its own: there are no weights to convert")
    if "def write_pth(" in answer_path(exercise, source_framework).read_text(encoding="utf-8"):
        fix = "give their .pth file by --weights"
        stop(f"{source}: every framework's answers to {exercise.name} read its weights as they are: {fix}")
    for name in names:
        given = vars(options)[name]
        if given and name not in exercise.network_options:
            stop(f"--{name}: {exercise.name} has no such option: leave it out")
        trained_with = network_options.get(name, given)
        if given and given != trained_with:
            stop(f"--{name} {' '.join(given)}: FROM was trained with --{name} {' '.join(trained_with)}: leave it out")
        if given:
            network_options[name] = given
    framework = options.framework or target.name.rpartition("_")[2]
    if framework not in FRAMEWORKS:
        stop(f"{target}: its name ends in no framework: give --framework {', '.join(FRAMEWORKS)}")
    if target.resolve() == source.resolve():
        stop(f"{target}: is FROM itself: choose another folder for TO")
    if (target / "metrics.json").exists():
        try:
            other = read_metrics(target)[0].name
        except ValueError:
            other = "something else"
        if other != exercise.name:
            stop(f"{target}: holds what {other} gave, and FROM is of {exercise.name}: choose another folder for TO")
    if (target / "loss.csv").exists():
        stop(f"{target}: holds a training's weights, which would be lost: choose another folder for TO")
    for script in (answer_path(exercise, source_framework), answer_path(exercise, framework)):
        if not script.exists():
            stop(f"{script}: there is no such file: restore it, to convert from and to it")
    arguments = list_arguments(exercise, network_options)
    if options.child:
        part, numbers = options.child
        side = (source_framework, source) if part == "export" else (framework, target)
        run_child(part, exercise, *side, numbers, arguments, count_classes(source))
        return
    with tempfile.TemporaryDirectory() as folder:
        numbers = str(Path(folder) / "weights.npz")
        for part in ("export", "import"):
            command = [sys.executable, __file__, str(source), str(target), "--framework", framework, *arguments]
            child = subprocess.run([*command, "--child", part, numbers])
            if child.returncode:
                sys.exit(child.returncode)
    script = answer_path(exercise, framework)
    if '"--test"' not in script.read_text(encoding="utf-8"):
        print(f"Written to {target}/")
        return
    command = [sys.executable, str(script), "--test", "--out", str(target), *arguments]
    quoted = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
    print(f"Written to {target}/; try it: {quoted}")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    main()
