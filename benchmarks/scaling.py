"""What several processes gain and cost: street_parallel by one and by two on this machine, and a model for many GPUs.

    python benchmarks/scaling.py [--frameworks "pytorch keras"] [--iterations 30] [--rounds 2] [--norm own] [--out FILE]

The answer's own `train` runs in one process and in two, each of one thread: two processes on the batch of one (strong
scaling), and on twice that batch, so that each has as much to do as the one (weak scaling). Beside each stands what its
share of the batch takes with nobody to talk to: two trainings side by side, each alone, so that what two processes take
from each other otherwise, memory and caches, is in both. The difference is communication, the waiting for the other
included. In PyTorch and Chainer the all-reduces are timed too. Input is read in the step itself (--workers 0), and
validation and checkpoints are left out. Times are medians over the steps after the first, and the runs take turns,
--rounds times. Where other work on the machine makes a step shorter than its share alone, "too noisy" stands instead of
the communication: give more --iterations.

How many bytes a step sends follows from the sizes of what is summed up: the gradients, what batch norm asks, and two
numbers for the loss. On Linux this is checked against what the system has counted on the loopback device, in a network
namespace of its own where that can be made (`unshare --net`), so that nothing else counts. What headers add, TCP's and
the engine's own, to each all-reduce and to each byte, is measured before training, by all-reduces of 64 numbers and of
as many as there are gradients.

The model: a step takes what its share takes to compute, and for each all-reduce of S bytes among N processes

    start + 2 (N - 1) latency + 2 (N - 1) / N x S / bandwidth

which is a ring's: each of N parts makes N - 1 hops to be summed up, and N - 1 to reach all (Patarasuk and Yuan,
Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009, doi:10.1016/j.jpdc.2008.09.002; the bytes
also in NVIDIA's nccl-tests, doc/PERFORMANCE.md). Latency and bandwidth of this machine are measured by the same
all-reduces before training. Assumed is that no all-reduce overlaps with computing, but for --overlap of the time of the
gradients', that one follows the other, and that nobody waits for a slower one. The prediction for two processes stands
beside the measurement; then come 8 GPUs and 64, by the assumptions that the options --gpu-... and --link-... state:
with the batch kept, and with as many images on each as on one. NCCL sums up what is small along a tree, whose hops
grow with the logarithm of the number of machines: for batch norm on many machines the ring's time is an upper bound.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
from exercises import FRAMEWORKS, answer_path, load_answer  # noqa: E402

WARM_UP = 5  # steps that do not count
SMALL = 64  # numbers: batch norm sums up as many as a layer has channels, from 16 to 256
PROBES = 12  # times that what shows latency and bandwidth is measured
PATIENCE = 300  # seconds that a process waits for another to begin
ITEM = 4  # bytes of a number in single precision
COUNTERS = Path("/proc/net/dev")
NAMESPACE = ("unshare", "--map-root-user", "--net")  # what is run by it has a loopback device of its own
COUNTS = {  # the default of an option, and its meaning
    "iterations": (30, "steps of a run that count"),
    "rounds": (2, "times that each run is made"),
    "batch": (4, "images in the batch of one process"),
    "size": (128, "height and width of the crops"),
    "gpu-batch": (64, "images in the batch of one GPU"),
    "gpu-machine": (8, "GPUs in a machine"),
}
ASSUMPTIONS = {  # the default of an option, the least it may be, and its meaning
    "overlap": (0, 0, "part of the gradients' all-reduces that goes on beside backward"),
    "gpu-factor": (280, 1e-3, "how many times as fast as one thread here a GPU computes: see On a GPU in README.md"),
    "gpu-least": (7.8, 0, "ms that a step computes at least, as kernels start one by one: see On a GPU in README.md"),
    "gpu-start": (6.6, 0, "us that an all-reduce takes to begin: in NCCL's src/graph/tuning.cc, Ring, LL"),
    "gpu-latency": (0.6, 0, "us of a hop by NVLink: in the same file, Ring, LL"),
    "gpu-bandwidth": (450, 1e-3, "GB/s by NVLink, one way: half of the 900 in the H100's data sheet"),
    "link-latency": (2.7, 0, "us of a hop to another machine: in NCCL's file, Ring, LL"),
    "link-bandwidth": (400, 1e-3, "GB/s from machine to machine: 8 times InfiniBand's 400 Gb/s, as in a DGX H100"),
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class Traffic(NamedTuple):
    """What an answer sums up over all processes in a step."""

    gradients: int  # all-reduces that the gradients are divided into
    norm: tuple[tuple[int, int], ...]  # of each that batch norm of C channels asks: (a, b), it has a C + b numbers
    loss: tuple[int, ...]  # the numbers of each all-reduce for the loss


# Batch norm: forward the count, the mean and the variance; backward the gradients of the variance and of the mean.
NORM = ((0, 1), (1, 0), (1, 0), (1, 0), (1, 0))
TRAFFIC = {
    "pytorch": Traffic(2, NORM, (1, 1)),  # DistributedDataParallel fills a bucket of 1 MiB, then others of 25
    "tensorflow": Traffic(1, NORM, (1, 1)),
    "keras": Traffic(1, NORM, (1, 1)),
    "chainer": Traffic(72, NORM, (1, 1)),  # the communicator naive: each array by itself
}
# On a GPU PyTorch's is SyncBatchNorm: forward it gathers mean, deviation and count, which is taken for an all-reduce
# (it has half the hops); backward it sums up two numbers for each channel. Chainer's pure_nccl sums up all gradients at
# once; batch norm goes through MPI there, and takes longer than is predicted.
GPU_TRAFFIC = TRAFFIC | {"pytorch": Traffic(2, ((2, 1), (2, 0)), (1, 1)), "chainer": Traffic(1, NORM, (1, 1))}


class Link(NamedTuple):
    """How processes reach each other."""

    start: float  # seconds that an all-reduce takes to begin
    latency: float  # seconds of a hop, however little it carries
    bandwidth: float  # bytes a second that a process sends while it receives as many


# ---- the model: no framework, no clock ----


def count_parameters(channels, classes):
    """Return how many numbers the training of U-Net sets, with that many channels at each size."""
    total = 0
    for before, after in itertools.pairwise((3, *channels)):
        total += 9 * before * after + 9 * after * after + 2 * 2 * after
    for before, after in itertools.pairwise(channels[::-1]):
        total += 4 * before * after + after + 9 * 2 * after * after + 9 * after * after + 3 * 2 * after
    return total + channels[0] * classes + classes


def list_norms(channels):
    """Return the channels of each batch norm of U-Net: two in a block, and one behind each upsampling."""
    return [each for each in channels for _ in range(2)] + [each for each in channels[-2::-1] for _ in range(3)]


def list_sizes(traffic, channels, classes, norm="all"):
    """Return the bytes of each all-reduce of a step, {"gradients": [...], "norm": [...], "loss": [...]}."""
    parameters, parts = count_parameters(channels, classes), traffic.gradients
    return {
        "gradients": [ITEM * (parameters // parts + (part < parameters % parts)) for part in range(parts)],
        "norm": [ITEM * (a * each + b) for each in list_norms(channels) for a, b in traffic.norm if norm == "all"],
        "loss": [ITEM * numbers for numbers in traffic.loss],
    }


def count_sent(size, processes):
    """Return the bytes that each process sends in a ring's all-reduce of size bytes."""
    return 2 * (processes - 1) / processes * size


def time_all_reduce(size, processes, link):
    """Return the seconds of a ring's all-reduce of size bytes; those of one process are none."""
    if processes == 1:
        return 0.0
    return link.start + 2 * (processes - 1) * link.latency + count_sent(size, processes) / link.bandwidth


def predict(processes, compute, sizes, link, overlap=0.0):
    """Return the seconds of a step, {"step": ..., "compute": ..., and of the all-reduces of each kind in sizes}.

    overlap is the part of the gradients' that goes on while backward still computes.
    """
    parts = {kind: sum(time_all_reduce(size, processes, link) for size in each) for kind, each in sizes.items()}
    parts["gradients"] *= 1 - overlap
    return {"step": compute + sum(parts.values()), "compute": compute, **parts}


def join_links(processes, machine, inside, between):
    """Return the link of a ring through several machines of so many GPUs each, as one whose hops are all alike.

    Of its hops as many lead out of a machine as there are machines. The narrowest link sets the pace.
    """
    machines = -(-processes // machine)
    if machines == 1:
        return inside
    latency = ((processes - machines) * inside.latency + machines * between.latency) / processes
    return Link(inside.start, latency, min(inside.bandwidth, between.bandwidth))


def fit_line(x, y):
    """Return a and b of the line a + b x through two points."""
    slope = (y[1] - y[0]) / (x[1] - x[0])
    return y[0] - slope * x[0], slope


def fit_link(sizes, seconds, processes):
    """Return the link whose all-reduces of two sizes take so many seconds; all that does not grow is its latency."""
    fixed, slope = fit_line([count_sent(size, processes) for size in sizes], seconds)
    return Link(0.0, fixed / (2 * (processes - 1)), 1 / slope if slope > 0 else math.inf)


# ---- in a process of the training ----


# Each of these makes a list gain (kind, bytes, when it began, when it had ended or None) of each all-reduce. There is
# none for TensorFlow and Keras, whose all-reduces are part of a graph.
def watch_pytorch(script, calls):
    distributed, parallel = script.distributed, script.DistributedDataParallel
    all_reduce = distributed.all_reduce

    def timed(tensor, *arguments, **named):
        start = time.perf_counter()
        all_reduce(tensor, *arguments, **named)
        calls.append(("other", tensor.nbytes, start, time.perf_counter()))

    def hook(_, bucket):  # the same happens without a hook
        gradients = bucket.buffer().div_(distributed.get_world_size())
        calls.append(("gradients", gradients.nbytes, time.perf_counter(), None))
        return all_reduce(gradients, async_op=True).get_future().then(lambda future: future.value()[0])

    def watched(*arguments, **named):
        found = parallel(*arguments, **named)
        found.register_comm_hook(None, hook)
        return found

    distributed.all_reduce, script.DistributedDataParallel = timed, watched


def watch_chainer(script, calls):
    comm = script.chainer.config.comm

    def watch(name, kind, count):
        function = getattr(comm, name)

        def timed(thing):
            start = time.perf_counter()
            found = function(thing)
            calls.append((kind, count(thing), start, time.perf_counter()))
            return found

        setattr(comm, name, timed)

    watch("allreduce", "other", lambda array: array.nbytes)
    watch("allreduce_obj", "other", lambda number: ITEM)
    watch("multi_node_mean_grad", "gradients", lambda network: sum(each.grad.nbytes for each in network.params()))


# Each of these returns a function that waits for so many all-reduces of so many numbers, one after another.
def reduce_pytorch(script, numbers, times):
    tensor = script.torch.zeros(numbers)
    return lambda: [script.distributed.all_reduce(tensor) for _ in range(times)]


def reduce_tensorflow(script, numbers, times):
    run, zeros = script.tf.distribute.get_strategy().run, script.tf.zeros(numbers)

    def reduce():
        total = zeros
        for _ in range(times):
            total = script.all_reduce(total)
        return total

    return script.tf.function(lambda: run(reduce))  # in one graph, as in a training step


reduce_keras = reduce_tensorflow


def reduce_chainer(script, numbers, times):
    array = script.np.zeros(numbers, script.np.float32)
    return lambda: [script.chainer.config.comm.allreduce(array) for _ in range(times)]


def count_loopback():
    """Return the bytes that the loopback device has sent so far, None where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in COUNTERS.read_text().splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == "lo":
                return int(numbers.split()[8])
    return None


def raise_loopback():
    """Switch the loopback device of a new network namespace on, and see that this machine's name leads to it."""
    import fcntl
    import socket
    import struct

    with socket.socket() as one:
        fcntl.ioctl(one, 0x8914, struct.pack("16sH14x", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP and IFF_RUNNING
    with socket.create_server((socket.gethostname(), 0)):
        pass


def measure_link(script, framework, parameters):
    """Return the sizes of a small and a large all-reduce, the seconds of either, and their bytes on loopback."""
    found = {"sizes": [], "seconds": [], "loopback": []}
    for numbers, times in ((SMALL, 20), (parameters, 1)):
        reduce, seconds = globals()[f"reduce_{framework}"](script, numbers, times), []
        for turn in range(WARM_UP + PROBES):
            if turn == WARM_UP:
                before = count_loopback()
            start = time.perf_counter()
            reduce()
            seconds.append((time.perf_counter() - start) / times)
        found["sizes"].append(ITEM * numbers)
        found["seconds"].append(median(seconds[WARM_UP:]))
        if before is not None:
            found["loopback"].append((count_loopback() - before) / PROBES / times)
    return found


def wait_for_others(folder, number):
    """Return when so many processes have come here."""
    (folder / f"{os.getpid()}.here").touch()
    end = time.monotonic() + PATIENCE
    while len(list(folder.glob("*.here"))) < number:
        if time.monotonic() > end:
            stop(f"of {number} processes some have not begun within {PATIENCE} s: try again on a machine that is idle")
        time.sleep(0.01)


def split_calls(calls, marks):
    """Return, of each step between two marks, the bytes of its all-reduces by kind and the seconds spent in them.

    Of those that go on beside backward the last begins when all gradients are known. Backward ends with it, and the
    next call follows.
    """
    sizes, seconds = [], []
    for first, last in itertools.pairwise(marks):
        step = calls[first:last]
        sizes.append({kind: [size for one, size, *_ in step if one == kind] for kind in ("gradients", "other")})
        spent = sum(end - start for _, _, start, end in step if end)
        final = max((place for place, call in enumerate(step[:-1]) if not call[3]), default=None)
        seconds.append(spent + (step[final + 1][2] - step[final][2] if final is not None else 0))
    return sizes, seconds


def drive(task):
    """Run an answer as a process of its own would, and write what this one of its processes has measured."""
    framework = task["framework"]
    if task["namespace"]:
        raise_loopback()
    path = answer_path("street_parallel", framework)
    script = load_answer(path)
    sys.argv = [str(path), *task["arguments"]]
    script.cv2.setNumThreads(1)
    train, draw_batches, stamps, marks, counted, calls = script.train, script.draw_batches, [], [], [], []

    def stamped_batches(*arguments):
        for batch in draw_batches(*arguments):
            yield batch
            stamps.append(time.perf_counter())  # train has come back for the next batch: its step is done
            marks.append(len(calls))
            counted.append(count_loopback())

    def measured_train(network, records, metrics, *others):
        options, found = others[-1], {}
        if options.processes > 1:
            parameters = count_parameters(script.CHANNELS, len(metrics["classes"]))
            found["link"] = measure_link(script, framework, parameters)
        wait_for_others(Path(task["folder"]), task["together"])
        if f"watch_{framework}" in globals():
            globals()[f"watch_{framework}"](script, calls)
        result = train(network, records, metrics, *others)
        first = WARM_UP - 1
        found["steps"] = [b - a for a, b in itertools.pairwise(stamps[first:])]
        found["channels"], found["classes"] = script.CHANNELS, len(metrics["classes"])
        if counted[-1] is not None and options.processes > 1:
            found["loopback"] = (counted[-1] - counted[first]) / len(found["steps"])
        if calls:
            sizes, seconds = split_calls(calls, marks[first:])
            found |= {"seen": sizes[-1], "in_all_reduces": seconds}
        (Path(task["folder"]) / f"{os.getpid()}.json").write_text(json.dumps(found | {"rank": options.rank}))
        return result

    script.draw_batches, script.train = stamped_batches, measured_train
    script.validate = lambda *_: {"miou": 0.0, "pixel_accuracy": 0.0, "iou": {}}
    script.save_weights = script.save_checkpoint = script.finish = lambda *_: None
    try:
        script.main()
    except (script.Stopped, script.Damaged, OSError) as error:
        stop(error)


# ---- the whole ----


def stop(message):
    """End with one line and status 2."""
    print(f"scaling.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def can_isolate():
    """Return whether commands can be run in a network namespace of their own."""
    command = [*NAMESPACE, sys.executable, __file__, "--child", "null"]
    with contextlib.suppress(OSError):
        return COUNTERS.exists() and not subprocess.run(command, capture_output=True).returncode
    return False


def measure(framework, processes, batch, copies, namespace, options):
    """Return what the processes of a training have measured, or those of several side by side, process 0 first."""
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("KERAS_BACKEND", None)
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--processes", processes, "--batch", batch, "--size", options.size, "--norm", options.norm]
        arguments += ["--iterations", WARM_UP + options.iterations, "--workers", 0, "--device", "cpu"]
        if options.data:
            arguments += ["--data", options.data]
        task = {"framework": framework, "folder": folder, "together": processes * copies, "namespace": namespace}
        runs = []
        for copy in range(copies):
            task["arguments"] = [*map(str, arguments), "--out", f"{folder}/out{copy}"]
            command = [*(NAMESPACE if namespace else ()), sys.executable, __file__, "--child", json.dumps(task)]
            runs.append(subprocess.Popen(command, stdout=-3, stderr=-1, encoding="utf-8", env=environment))
        try:
            errors = [run.communicate()[1] for run in runs]
        finally:
            for run in runs:
                run.terminate()  # where Ctrl-C, or the failure of another, has ended this early
        for run, error in zip(runs, errors, strict=True):
            if run.returncode not in (0, 2):  # with 2 it ends in a line that says what to do
                print(error, file=sys.stderr)
            if run.returncode:
                stop((error.splitlines() or ["a child ended without a word"])[-1].removeprefix("scaling.py: "))
        found = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    return sorted(found, key=lambda each: each["rank"])


def measure_framework(framework, namespace, options, advance):
    """Return all that is measured of a framework's answer, in seconds and bytes a step."""
    batch, times, waits, links, loopback = options.batch, {}, {}, [], []
    cases = {  # processes, batch, trainings side by side
        "one": (1, batch, 1),
        "strong": (2, batch, 1),
        "strong, share alone": (1, batch // 2, 2),
        "weak": (2, 2 * batch, 1),
        "weak, share alone": (1, batch, 2),
    }
    for _ in range(options.rounds):
        for case, (processes, size, copies) in cases.items():
            found = measure(framework, processes, size, copies, namespace and processes > 1, options)
            times.setdefault(case, []).extend(step for each in found for step in each["steps"])
            for each in found:
                waits.setdefault(case, []).extend(each.get("in_all_reduces", ()))
            if processes > 1:
                links.append(found[0]["link"])
                loopback += [found[0]["loopback"]] if "loopback" in found[0] else []
            advance()
    measured = {"steps": {case: median(each) for case, each in times.items()}}
    measured["in_all_reduces"] = {case: median(each) for case, each in waits.items() if each}
    measured["link"] = {
        what: [median(pair) for pair in zip(*(each[what] for each in links), strict=True)] for what in links[0]
    }
    measured |= {"loopback": median(loopback) if loopback else None, "namespace": namespace}
    return measured | {name: found[0].get(name) for name in ("channels", "classes", "seen")}


def evaluate(framework, measured, options):
    """Return what follows from the measurements: bytes, communication, and the predictions beside what they are of."""
    steps, link = measured["steps"], measured["link"]
    shape = measured["channels"], measured["classes"], options.norm
    sizes = list_sizes(TRAFFIC[framework], *shape)
    flat = list(itertools.chain(*sizes.values()))
    fitted = fit_link(link["sizes"], link["seconds"], 2)
    found = {"sizes": sizes, "all_reduces": len(flat), "sent": sum(count_sent(size, 2) for size in flat)}
    found["link"] = fitted._asdict()
    if link["loopback"] and link["loopback"][1] > link["sizes"][1]:  # not where MPI goes through memory
        every, growth = fit_line(link["sizes"], link["loopback"])  # by 2 bytes for one, as both send, and headers
        found["loopback_model"] = len(flat) * every + growth * found["sent"]
    for case in ("strong", "weak"):
        compute = steps[f"{case}, share alone"]
        predicted = predict(2, compute, sizes, fitted, options.overlap)
        found[case] = {"communication": steps[case] - compute, "predicted": predicted}
        found[case]["ratio"] = predicted["step"] / steps[case]
    sizes = list_sizes(GPU_TRAFFIC[framework], *shape)
    inside = Link(options.gpu_start / 1e6, options.gpu_latency / 1e6, options.gpu_bandwidth * 1e9)
    between = Link(0.0, options.link_latency / 1e6, options.link_bandwidth * 1e9)
    found["gpus"] = []
    for gpus, batch in ((1, 1), (8, 1), (64, 1), (8, 8), (64, 64)):
        batch *= options.gpu_batch
        compute = batch / gpus * steps["one"] / options.batch / options.gpu_factor
        ring = join_links(gpus, options.gpu_machine, inside, between)
        row = predict(gpus, max(compute, options.gpu_least / 1e3), sizes, ring, options.overlap)
        found["gpus"].append({"gpus": gpus, "batch": batch, "images": batch / row["step"], **row})
        found["gpus"][-1]["gain"] = found["gpus"][-1]["images"] / found["gpus"][0]["images"]
    return found


def print_measured(framework, found, options):
    """Print the tables of a framework: what was measured, what a step sends, and the model beside the measurement."""
    steps, console = found["steps"], Console(width=140)
    console.print(f"{framework}: images of {options.size} x {options.size}, --norm {options.norm}, one thread each")
    header = ("processes", "batch", "step, ms", "steps a second", "images a second", "share alone, ms")
    table = Table(*header, "communication", "in all-reduces", box=MARKDOWN)
    for case, processes, batch in (("one", 1, 1), ("strong", 2, 1), ("weak", 2, 2)):
        step, batch = steps[case], batch * options.batch
        row = [str(processes), str(batch), f"{1e3 * step:.1f}", f"{1 / step:.2f}", f"{batch / step:.1f}"]
        if processes > 1:
            spent, communication = found["in_all_reduces"].get(case), found[case]["communication"]
            row += [f"{1e3 * steps[f'{case}, share alone']:.1f}"]
            row += [f"{communication / step:.1%}" if communication >= 0 else "too noisy"]
            row += [f"{spent / step:.1%}"] if spent else [""]
        table.add_row(*row)
    console.print(table)
    header = (
        "all-reduces a step",
        "bytes that each sends",
        "seen in its calls",
        "on loopback, by the model",
        "counted",
    )
    table, seen = Table(*header, box=MARKDOWN), found["seen"] and sum(itertools.chain(*found["seen"].values()))
    counted = found["loopback"] if "loopback_model" in found else None
    numbers = found["all_reduces"], found["sent"], seen, found.get("loopback_model"), counted
    table.add_row(*("" if number is None else f"{number:,.0f}" for number in numbers))
    console.print(table)
    if counted is not None:
        where = "in a namespace of its own" if found["namespace"] else "with all else that this machine sends"
        console.print(f"Counted on the loopback device {where}")
    elif found["loopback"] is not None:
        console.print("Nothing to count on the loopback device: these processes reach each other through memory")
    latency, bandwidth = 1e6 * found["link"]["latency"], found["link"]["bandwidth"] / 1e6
    console.print(f"Of this machine: latency {latency:.1f} us, bandwidth {bandwidth:.0f} MB/s")
    header = ("two processes, batch", "share alone, ms", "gradients, ms", "batch norm, ms", "loss, ms", "predicted, ms")
    table = Table(*header, "measured, ms", "ratio", box=MARKDOWN)
    for case, batch in (("strong", options.batch), ("weak", 2 * options.batch)):
        predicted = found[case]["predicted"]
        row = [f"{1e3 * predicted[part]:.2f}" for part in ("compute", "gradients", "norm", "loss", "step")]
        table.add_row(str(batch), *row, f"{1e3 * steps[case]:.2f}", f"{found[case]['ratio']:.3f}")
    console.print(table)
    header = ("GPUs, by the model", "batch", "computing, ms", "gradients, ms", "batch norm, ms", "loss, ms", "step, ms")
    table = Table(*header, "images a second", "times one GPU", box=MARKDOWN)
    for row in found["gpus"]:
        parts = [f"{1e3 * row[part]:.3f}" for part in ("compute", "gradients", "norm", "loss", "step")]
        table.add_row(str(row["gpus"]), str(row["batch"]), *parts, f"{row['images']:,.0f}", f"{row['gain']:.1f}")
    console.print(table)


def read_options():
    """Return the options of the command line; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    there = [framework for framework in FRAMEWORKS if answer_path("street_parallel", framework).exists()]
    parser.add_argument("--frameworks", default=" ".join(there), help="(%(default)s)")
    parser.add_argument("--data", type=Path, help="records to train on (outputs/02_street_records_FRAMEWORK)")
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    parser.add_argument("--norm", choices=("all", "own", "none"), default="all", help="the answer's (%(default)s)")
    for name, (default, meaning) in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (%(default)s)")
    for name, (default, _, meaning) in ASSUMPTIONS.items():
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{meaning} (%(default)s)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.frameworks = options.frameworks.split()
    if set(options.frameworks) - set(there) or not options.frameworks:
        stop(f"--frameworks {' '.join(options.frameworks)}: give some of {', '.join(there)}")
    for name in COUNTS:
        if vars(options)[name.replace("-", "_")] < 1:
            stop(f"--{name}: give a whole number from 1 up")
    if options.batch < 4 or options.batch % 2:
        stop(f"--batch {options.batch}: give an even number from 4 up, whose half one process can train on alone")
    if options.size < 32 or options.size % 16:
        stop(f"--size {options.size}: give a multiple of 16 from 32 up")
    if options.gpu_batch < 64:
        stop(f"--gpu-batch {options.gpu_batch}: give 64 or more, an image for each GPU")
    for name, (_, least, _) in ASSUMPTIONS.items():
        if not least <= vars(options)[name.replace("-", "_")] < math.inf:
            stop(f"--{name}: give a number from {least} up")
    if options.overlap > 1:
        stop(f"--overlap {options.overlap}: give a part, from 0 to 1")
    return options


def main():
    options = read_options()
    if options.child:
        task = json.loads(options.child)
        return drive(task) if task else raise_loopback()
    namespace, found = can_isolate(), {}
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("measuring", total=5 * options.rounds * len(options.frameworks))
        for framework in options.frameworks:
            measured = measure_framework(framework, namespace, options, lambda: bar.advance(task))
            found[framework] = measured | evaluate(framework, measured, options)
    for framework in found:
        print_measured(FRAMEWORKS[framework], found[framework], options)
    print(f"medians of {options.rounds} x {options.iterations} steps, {os.cpu_count()} cores")
    if options.out:
        assumed = {name: value for name, value in vars(options).items() if isinstance(value, int | float)}
        content = {"options": assumed, "norm": options.norm, "cores": os.cpu_count(), "frameworks": found}
        try:
            options.out.write_text(json.dumps(content, indent=1) + "\n")
        except OSError as error:
            stop(f"{error}: name another file with --out")
        print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
