"""street_parallel: one curve whatever the number of processes, what accumulates, faults of one process, going on.

Where the framework's own launcher is not what is tested, the processes are children of one that has imported the
framework, told who they are as a launcher would tell them. Chainer's are always started by mpirun.
"""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import copies
import numpy as np
import pytest
import torch
from conftest import ANSWERS, FRAMEWORKS, ROOT, pytorch, run_python

ANSWER, TRAIN, VOID = pytorch("street_parallel"), pytorch("street_train"), 255
by_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
by_forked = pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "chainer"])
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts its processes by fork")
SMALL = ["--batch", 4, "--size", 32, "--workers", 0, "--pictures", 1, "--device", "cpu"]

# In the child of the fork server, before the answer: be several, each told its rank as by a launcher.
SEVERAL = """
import json, os, sys
children, leave = [], os._exit
for rank in range(1, {number}):
    child = os.fork()
    if not child:
        import ctypes
        ctypes.CDLL(None).prctl(1, 9)  # ends with process 0: a later test would get what it still writes
        break
    children.append(child)
else:
    rank = 0

def wait(status):
    ends = [status] + [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    with open("ends.json", "w") as file:
        json.dump(ends, file)
    leave(max(ends))

if not rank:
    os._exit = wait
ports = {ports}
os.environ |= {{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "{number}"}}
os.environ |= {{"MASTER_ADDR": "localhost", "MASTER_PORT": str(ports[0])}}
cluster, task = {{"worker": [f"localhost:{{port}}" for port in ports]}}, {{"type": "worker", "index": rank}}
os.environ["TF_CONFIG"] = json.dumps({{"cluster": cluster, "task": task}})
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)  # of all cores each would take all
"""


def find_ports(number):
    """Return numbers of free ports."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def several(fork):
    """Run an answer in a number of processes; more is code that each runs first, in which rank is its own."""

    def run(script, number, *arguments, cwd, more=""):
        if script.stem.endswith("chainer"):
            return run_python(script, *arguments, "--processes", number, cwd=cwd)
        before = SEVERAL.format(number=number, ports=find_ports(number))
        return fork(script, *arguments, cwd=cwd, before=before + more)

    return run


def copy_double(exercise, framework, folder):
    """Copy an answer to folder that computes in double precision; return its path."""
    text = ANSWERS[exercise, framework].read_text("utf-8")
    assert text.count('\nFLOAT = "float32"') == 1
    path = folder / ANSWERS[exercise, framework].name
    path.write_text(text.replace('\nFLOAT = "float32"', '\nFLOAT = "float64"'), "utf-8")
    return path


def read_losses(out):
    with open(out / "loss.csv", newline="") as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


def assert_one_line(result, *named, status=2):
    """The run ended with that status, and one line beside its progress bars that names all of these."""
    lines = [line for line in result.stderr.splitlines() if line.strip(" \x1b[A") and "%|" not in line]
    assert result.returncode == status and len(lines) == 1, result.stderr
    assert all(name in lines[0] for name in named), lines[0]


# ---- one curve ----


@pytest.fixture(scope="module")
def curves(tmp_path_factory, street_stages, fork, several):
    """Return a function of a framework, a number of processes and options: losses of 20 steps in double precision.

    And pixel accuracy and mIoU of its validations. With 0 processes it is street_train.
    """
    done = {}

    def find(framework, number, *more):
        if (framework, number, *more) not in done:
            top = tmp_path_factory.mktemp("何 人 でも")
            arguments = ["--data", street_stages["street_records"], *SMALL, "--iterations", 20, "--out", "out", *more]
            script = copy_double("street_parallel" if number else "street_train", framework, top)
            if number > 1:
                result = several(script, number, *arguments, cwd=top)
            else:
                result = fork(script, *arguments, *(["--processes", 1] if number else []), cwd=top)
            assert result.returncode == 0, result.stderr
            done[framework, number, *more] = read_losses(top / "out"), (top / "out/validation.csv").read_text()
        return done[framework, number, *more]

    return find


def find_distance(one, other):
    """Return the largest difference of two arrays, relative to the other's numbers."""
    assert one.shape == other.shape and np.isfinite(one).all()
    return np.abs(one / other - 1).max()


@by_framework
def test_two_processes_draw_the_curve_of_one(curves, framework):
    losses, validations = curves(framework, 2)
    expected, expected_validations = curves(framework, 0)
    assert len(losses) == 20 and find_distance(losses, expected) < 1e-9
    assert validations == expected_validations


@pytest.mark.parametrize("number", [1, 3, 4])
def test_so_do_more_and_such_whose_shares_differ(curves, number):
    assert find_distance(curves("pytorch", number)[0], curves("pytorch", 0)[0]) < 1e-9


@by_framework
def test_frameworks_agree_with_two_processes(curves, framework):
    assert find_distance(curves(framework, 2)[0], curves("pytorch", 0)[0]) < 1e-9


def test_parts_one_after_another_are_as_processes_side_by_side(curves, framework="pytorch"):
    """Batch norm is over the images that are together: so not as the whole batch, unless there is none."""
    parts = curves(framework, 1, "--norm", "own", "--accumulate", 2)[0]
    assert find_distance(parts, curves(framework, 2, "--norm", "own")[0]) < 1e-9
    assert find_distance(parts, curves(framework, 0)[0]) > 1e-3
    none = ("--norm", "none", "--lr", 0.01)
    parts = curves(framework, 1, *none, "--accumulate", 3)[0]
    assert find_distance(parts, curves(framework, 1, *none)[0]) < 1e-9
    assert np.ptp(parts) > 0.1


def test_the_loss_is_that_of_the_batch_though_one_share_is_almost_void(monkeypatch):
    """The mean of the processes' means would count the few pixels of one as much as the many of the other."""
    logits = torch.randn(2, 3, 4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    classes = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    classes[1, :, 1:] = VOID
    weights = torch.tensor([1.0, 2.0, 5.0], dtype=torch.double)
    expected = TRAIN.compute_loss(logits, classes, weights)
    totals = [weights[each[each != VOID].long()].sum() for each in classes]
    monkeypatch.setattr(ANSWER.distributed, "all_reduce", lambda total: total.copy_(sum(totals)))
    shares = [
        ANSWER.compute_loss(
            logits[i : i + 1], classes[i : i + 1], weights, ANSWER.weigh_batch(classes[i : i + 1], weights)
        )
        for i in range(2)
    ]
    assert sum(shares).item() == pytest.approx(expected.item(), rel=1e-12)
    means = [TRAIN.compute_loss(logits[i : i + 1], classes[i : i + 1], weights) for i in range(2)]
    assert abs(sum(means).item() / 2 / expected.item() - 1) > 0.01
    monkeypatch.setattr(ANSWER.distributed, "all_reduce", lambda total: None)
    nothing = torch.full_like(classes, VOID)
    assert ANSWER.compute_loss(logits, nothing, weights, ANSWER.weigh_batch(nothing, weights)).item() == 0


def test_shares_make_up_the_batch(street_stages):
    folder = street_stages["street_records"]
    records = ANSWER.Records(sorted(folder.glob("train-*.tfrecord")))
    for number in (1, 2, 3, 4):
        options = SimpleNamespace(size=32, batch=4, seed=5, processes=number)
        shares = []
        for rank in range(number):
            options.rank = rank
            shares.append(ANSWER.make_batch(records, 3, options))
        for kind, whole in enumerate(TRAIN.make_batch(records, 3, options)):
            together = np.empty_like(whole)
            for rank, share in enumerate(shares):
                together[rank::number] = share[kind]
            assert np.array_equal(together, whole)


# ---- the framework's own launcher, and a process that is killed ----


def list_processes(folder):
    """Return {rank: pid} of the processes that train in a folder and were started by a launcher."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            variables = dict(
                line.split("=", 1) for line in (path / "environ").read_bytes().decode().split("\0") if "=" in line
            )
            if "STREET_PARALLEL" in variables and Path(os.readlink(path / "cwd")) == folder:
                config = json.loads(variables.get("TF_CONFIG", "{}"))
                rank = config.get("task", {}).get("index", variables.get("RANK", variables.get("OMPI_COMM_WORLD_RANK")))
                if rank is not None and b"multiprocessing" not in (path / "cmdline").read_bytes():
                    found[int(rank)] = int(path.name)
        except (OSError, UnicodeError):  # it has ended, or is another user's
            pass
    return found


@pytest.fixture(scope="module")
def killed(tmp_path_factory, street_stages, several):
    """Return a function of a framework: a folder with whole/ of a run by two processes, and out/ of one of which the
    second was killed after the first checkpoint; what that printed, and the arguments.
    """
    done = {}

    def find(framework):
        if framework not in done:
            top, script = tmp_path_factory.mktemp("倒れて も"), ANSWERS["street_parallel", framework]
            arguments = ["--data", street_stages["street_records"], *SMALL, "--iterations", 30]
            result = several(script, 2, *arguments, "--out", "whole", cwd=top)
            assert result.returncode == 0, result.stderr
            command = [sys.executable, str(script), *map(str, arguments), "--out", "out"]
            run = subprocess.Popen(command, cwd=top, stdout=-1, stderr=-1, encoding="utf-8")
            try:
                end = time.monotonic() + 120
                while not list((top / "out").glob("checkpoint*")) and run.poll() is None and time.monotonic() < end:
                    time.sleep(0.005)
                processes = list_processes(top)
                assert sorted(processes) == [0, 1], run.communicate(timeout=60)
                os.kill(processes[1], signal.SIGKILL)
                start = time.monotonic()
                out, err = run.communicate(timeout=100)
            finally:
                run.kill()
            result = subprocess.CompletedProcess(command, run.returncode, out, err)
            shutil.copytree(top / "out", top / "killed")
            done[framework] = top, result, time.monotonic() - start, arguments
        return done[framework]

    return find


@by_framework
def test_a_killed_process_ends_the_others_with_one_line(killed, framework):
    top, result, seconds, _ = killed(framework)
    assert seconds < 60
    assert_one_line(result, "process 1 of 2", "SIGKILL", "--resume", status=1)
    end = time.monotonic() + 30
    while list_processes(top) and time.monotonic() < end:  # those that read ahead need a while to notice
        time.sleep(0.1)
    assert not list_processes(top)
    assert not (top / "out/metrics.json").exists() and not (top / "out/loss.csv").exists()


@by_framework
def test_and_it_goes_on_to_the_same_curve(killed, several, framework):
    top, _, _, arguments = killed(framework)
    result = several(ANSWERS["street_parallel", framework], 2, *arguments, "--out", "out", "--resume", cwd=top)
    assert result.returncode == 0, result.stderr
    for name in ("loss.csv", "validation.csv"):
        assert (top / "out" / name).read_bytes() == (top / "whole" / name).read_bytes()
    # A training that had begun anew would have removed the log of the first.
    logs = [len(list((top / name / "logs").rglob("events.out.tfevents.*"))) for name in ("out", "whole")]
    assert logs[0] == 2 * logs[1]
    one, other = (json.loads((top / name / "metrics.json").read_text()) for name in ("out", "whole"))
    assert one["miou"] == other["miou"] and one["iou"] == other["iou"] and one["best"] == other["best"]
    assert not list((top / "out").glob("checkpoint*")) and not list((top / "out").glob(".part*"))


def test_a_finished_run_is_not_resumed(killed, fork, several):
    top, _, _, arguments = killed("pytorch")
    script, given = ANSWERS["street_parallel", "pytorch"], [*arguments, "--out", "whole", "--resume"]
    result = fork(script, *given, "--processes", 1, cwd=top)
    assert_one_line(result, f"{script.name}: --resume", "finished")
    # On a machine that has not the folder of process 0 nothing is finished: all must end, and none wait.
    more = "if rank: sys.argv[sys.argv.index('--out') + 1] = 'elsewhere'"
    start = time.monotonic()
    assert_one_line(several(script, 2, *given, cwd=top, more=more), "process 0 on ", "--resume", "finished")
    assert time.monotonic() - start < ANSWER.TIMEOUT / 2 and not (top / "elsewhere").exists()


def test_no_process_outlives_the_one_that_has_started_it(killed, tmp_path):
    """Or it would go on writing where a user has begun anew."""
    _, _, _, arguments = killed("pytorch")
    script = ANSWERS["street_parallel", "pytorch"]
    command = [sys.executable, str(script), *map(str, arguments), "--out", "out", "--iterations", "100000"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (tmp_path / "out/checkpoint.pt").exists() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert len(list_processes(tmp_path)) == 2
    run.kill()
    run.wait()
    end = time.monotonic() + 20
    while (left := list_processes(tmp_path)) and time.monotonic() < end:
        time.sleep(0.1)
    for process in left.values():
        os.kill(process, signal.SIGKILL)
    assert not left


def test_the_engine_of_tensorflow_and_keras_is_one():
    """They start, meet and end processes by the same text."""
    names = ("read_cluster", "find_place", "launch", "meet", "join", "follow", "gather", "stop_all")
    texts = [copies.read_pieces(ANSWERS["street_parallel", framework]) for framework in ("tensorflow", "keras")]
    for name in names:
        assert texts[0][name].text == texts[1][name].text, name


# In each process of several, before the answer: one that is drawn is killed at a moment that is drawn.
KILL = """
import random, signal, threading
draw = random.Random({seed})
victim, delay = draw.randrange({number}), draw.uniform(0, {length})
if rank == victim:
    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
"""


def test_killed_at_twenty_moments_the_curve_is_the_same(tmp_path, street_stages, several):
    script = tmp_path / ANSWERS["street_parallel", "pytorch"].name
    text = ANSWERS["street_parallel", "pytorch"].read_text("utf-8")
    script.write_text(text.replace("CHANNELS = (16, 32, 64, 128, 256)", "CHANNELS = (2, 2, 2, 2, 2)"), "utf-8")
    arguments = ["--data", street_stages["street_records"], *SMALL, "--iterations", 24]
    begin = time.monotonic()
    assert several(script, 2, *arguments, "--out", "whole", cwd=tmp_path).returncode == 0
    length, kills, runs = time.monotonic() - begin, 0, 0
    expected = [(tmp_path / "whole" / name).read_bytes() for name in ("loss.csv", "validation.csv")]
    tries = goes_on = 0
    while kills < 20 or (tmp_path / "out").exists():
        tries, goes_on = tries + 1, goes_on + (tmp_path / "out/checkpoint.pt").exists()
        more = KILL.format(seed=tries, number=2, length=0.8 * length) if kills < 20 else ""
        result = several(script, 2, *arguments, "--out", "out", "--resume", cwd=tmp_path, more=more)
        if (tmp_path / "ends.json").exists():  # else it was process 0 that was killed
            ends = json.loads((tmp_path / "ends.json").read_text())
            (tmp_path / "ends.json").unlink()
            assert set(ends) <= {0, -9, ANSWER.LOST}, (ends, result.stderr)
            kills += -9 in ends
        else:
            assert result.returncode == -9
            kills += 1
        if (tmp_path / "out/metrics.json").exists():
            runs += 1
            assert [(tmp_path / "out" / name).read_bytes() for name in ("loss.csv", "validation.csv")] == expected
            shutil.rmtree(tmp_path / "out")
    assert runs >= 1 and goes_on >= 5


def test_another_number_of_processes_may_go_on(killed, tmp_path, fork):
    top, _, _, arguments = killed("pytorch")
    shutil.copytree(top / "killed", tmp_path / "out")
    done = len(torch.load(tmp_path / "out/checkpoint.pt", weights_only=True)["losses"])
    assert done < 25
    more = ["--out", "out", "--resume", "--processes", 1]
    result = fork(ANSWERS["street_parallel", "pytorch"], *arguments, *more, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    losses, expected = (read_losses(folder) for folder in (tmp_path / "out", top / "whole"))
    assert len(losses) == 30 and np.array_equal(losses[:done], expected[:done])
    assert find_distance(losses[done : done + 3], expected[done : done + 3]) < 1e-2


def test_other_records_and_another_number_of_processes_that_batch_norm_depends_on_are_refused(killed, tmp_path, fork):
    top, _, _, arguments = killed("pytorch")
    shutil.copytree(top / "killed", tmp_path / "out")
    script, given = ANSWERS["street_parallel", "pytorch"], ["--processes", 1, "--out", "out", "--resume"]
    copy = shutil.copytree(arguments[1], tmp_path / "records")
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["pixels"][metrics["classes"][0]] += 1  # as of records that were written anew from other images
    (copy / "metrics.json").write_text(json.dumps(metrics))
    result = fork(script, *arguments, *given, "--data", copy, cwd=tmp_path)
    assert_one_line(result, "--resume", " is of a run with records of sum ", ", and this one has records of sum ")
    result = fork(script, *arguments, *given, "--norm", "own", cwd=tmp_path)
    assert_one_line(result, " is of a run with --norm all, and this one has --norm own, --processes 1: give the same")
    options = SimpleNamespace(lr=0.1, iterations=1, batch=4, size=32, seed=0, accumulate=1, norm="all", records=5)
    options.weighting = "classes"
    for norm, accumulate, depends in (("all", 1, False), ("all", 2, True), ("own", 1, True), ("none", 2, False)):
        texts = set()
        for options.processes in (1, 2):
            options.norm, options.accumulate = norm, accumulate
            texts.add(ANSWER.describe(options))
        assert len(texts) == 1 + depends


def test_a_training_that_begins_anew_leaves_no_checkpoint_of_an_earlier_one(killed, tmp_path, fork):
    top, _, _, arguments = killed("pytorch")
    shutil.copytree(top / "killed", tmp_path / "out")
    before = "import os, signal, torch\ntorch.optim.SGD = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)"
    script = ANSWERS["street_parallel", "pytorch"]
    assert fork(script, *arguments, "--processes", 1, "--out", "out", cwd=tmp_path, before=before).returncode == -9
    assert not (tmp_path / "out/checkpoint.pt").exists()


def test_torchrun_starts_anew_from_the_checkpoint(killed, tmp_path):
    """Elastic: the process that was killed, and with it the others, are started once more."""
    top, _, _, arguments = killed("pytorch")
    kill = tmp_path / "kill.py"
    kill.write_text(
        "import os, pathlib, runpy, sys, threading, time\n"
        "def watch():\n"
        "    while not pathlib.Path('out/checkpoint.pt').exists():\n"
        "        time.sleep(0.005)\n"
        "    os.kill(os.getpid(), 9)\n"
        "if (os.environ['RANK'], os.environ['TORCHELASTIC_RESTART_COUNT']) == ('1', '0'):\n"
        "    threading.Thread(target=watch, daemon=True).start()\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", 2, kill]
    more = [ANSWERS["street_parallel", "pytorch"], *arguments, "--out", "out", "--resume"]
    result = run_python(*torchrun, *more, cwd=tmp_path)
    assert result.returncode == 0 and "exitcode: -9" in result.stderr, result.stderr
    assert (tmp_path / "out/loss.csv").read_bytes() == (top / "whole/loss.csv").read_bytes()
    # A training that had begun anew would have removed the log of the first.
    assert len(list((tmp_path / "out/logs").glob("events.out.tfevents.*"))) == 2


# ---- traps of the lesson ----


def test_the_images_that_an_epoch_leaves_out_are_those_of_the_lesson():
    """Of 200: where each process shuffles by a seed of its own, and where all take the same share."""
    page, orders = ROOT / "Question_street/lesson/06_street_parallel.md", []
    for seed in range(8):
        orders.append(ANSWER.draw_order([50] * 4, seed, 0)[1])
    for text, choose in {
        "one order, and each its own share of it": lambda rank, number: orders[0][rank::number],
        "each shuffles by a seed of its own": lambda rank, number: orders[rank][rank::number],
        "all take the same share": lambda rank, number: orders[0][::number],
    }.items():
        missed = [200 - len(set().union(*(choose(rank, number) for rank in range(number)))) for number in (2, 4, 8)]
        assert f"| {text} | {' | '.join(map(str, missed))} |" in page.read_text("utf-8")


def test_a_mean_of_gradients_is_half_the_learning_rate_and_shows_in_no_first_loss(
    street_stages, tmp_path, fork, several
):
    """DistributedDataParallel divides the sum of the gradients by the number of processes."""
    script = copy_double("street_parallel", "pytorch", tmp_path)
    arguments = ["--data", street_stages["street_records"], *SMALL, "--iterations", 4, "--norm", "none"]
    assert fork(script, *arguments, "--processes", 1, "--lr", 0.005, "--out", "half", cwd=tmp_path).returncode == 0
    assert fork(script, *arguments, "--processes", 1, "--lr", 0.01, "--out", "whole", cwd=tmp_path).returncode == 0
    text = script.read_text("utf-8")
    assert text.count("(options.processes * part).backward()") == 1
    script.write_text(text.replace("(options.processes * part).backward()", "part.backward()"), "utf-8")
    result = several(script, 2, *arguments, "--lr", 0.01, "--out", "mean", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    mean, half, whole = (read_losses(tmp_path / name) for name in ("mean", "half", "whole"))
    assert find_distance(mean, half) < 1e-9 and find_distance(mean[:1], whole[:1]) < 1e-9
    assert find_distance(mean, whole) > 1e-4


def test_pytorchs_synchronised_batch_norm_refuses_a_cpu():
    ANSWER.distributed.init_process_group("gloo", store=ANSWER.distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="SyncBatchNorm"):
            torch.nn.SyncBatchNorm(3)(torch.zeros(2, 3, 4, 4))
    finally:
        ANSWER.distributed.destroy_process_group()


# ---- processes that do not fit together ----


@by_forked
def test_what_is_not_alike_is_told_before_training(street_stages, tmp_path, several, framework):
    script = ANSWERS["street_parallel", framework]
    arguments = ["--data", street_stages["street_records"], *SMALL, "--iterations", 2, "--out", "out"]
    result = several(script, 2, *arguments, cwd=tmp_path, more="if rank: sys.argv += ['--seed', '1']")
    assert_one_line(result, "process 1 on ", " has --seed 1, process 0 has --seed 0: make them alike")
    result = several(script, 2, *arguments, cwd=tmp_path, more="import cv2\nif rank: cv2.__version__ = '1.0'")
    assert_one_line(result, "process 1 on ", "OpenCV 1.0")
    folder = shutil.copytree(street_stages["street_records"], tmp_path / "records")
    (folder / "train-00001-of-00004.tfrecord").unlink()
    more = "if rank: sys.argv[sys.argv.index('--data') + 1] = 'records'"
    result = several(script, 2, *arguments, cwd=tmp_path, more=more)
    assert_one_line(result, "process 1 on ", "train-00001-of-00004.tfrecord", "no such file")
    result = several(script, 2, *arguments, "--data", "records", cwd=tmp_path)  # the same problem in both
    assert_one_line(result, f"{script.name}: records/train-00001-of-00004.tfrecord: ", "no such file")
    assert not (tmp_path / "out").exists()


@by_forked
def test_who_is_last_to_stop_says_nothing_more(monkeypatch, capsys, framework):
    """A process that ends first makes the others' last exchange fail, after all has been said."""
    piece = copies.read_pieces(ANSWERS["street_parallel", framework])["stop_all"].text
    assert piece == copies.read_pieces(ANSWERS["street_parallel", "pytorch"])["stop_all"].text
    monkeypatch.setattr(ANSWER, "gather", lambda thing: 1 / 0)
    with pytest.raises(SystemExit) as stopped:
        ANSWER.stop_all("not alike", SimpleNamespace(rank=0))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(": not alike\n")


@by_forked
def test_a_port_that_is_taken_is_told(street_stages, tmp_path, several, framework, monkeypatch):
    script = ANSWERS["street_parallel", framework]
    arguments = ["--data", street_stages["street_records"], *SMALL, "--iterations", 2, "--out", "out"]
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys.modules[__name__], "find_ports", lambda number: [port, *range(port + 1, port + number)])
        result = several(script, 1, *arguments, cwd=tmp_path)
    assert_one_line(result, str(port))


@pytest.mark.parametrize("rank, number", [("0", ""), ("one", "2"), ("2", "2"), ("-1", "2")])
def test_a_place_that_makes_no_sense_is_told(monkeypatch, rank, number):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", number)
    with pytest.raises(ANSWER.Stopped, match=f"^RANK={rank} WORLD_SIZE={number}: give both"):
        ANSWER.find_place()


def test_a_share_has_an_image_at_least(street_stages, tmp_path, fork):
    arguments = ["--data", street_stages["street_records"], *SMALL, "--batch", 4]
    result = fork(ANSWERS["street_parallel", "pytorch"], *arguments, "--processes", 1, "--accumulate", 5, cwd=tmp_path)
    assert_one_line(result, "--batch 4", "--accumulate 5")


# What each framework would tell of a machine with two GPUs.
TWO_GPUS = {
    "pytorch": "answer.torch.cuda.device_count = lambda: 2",
    "tensorflow": "answer.tf.config.list_physical_devices = lambda kind: ['GPU 0', 'GPU 1']",
    "chainer": "answer.count_gpus = lambda: 2",
}


@by_framework
def test_a_gpu_is_taken_where_each_process_has_its_own(framework):
    lines = [
        "from types import SimpleNamespace",
        "from exercises import answer_path, load_answer",
        f"answer = load_answer(answer_path('street_parallel', '{framework}'))",
        TWO_GPUS["tensorflow" if framework == "keras" else framework],
        "if hasattr(answer, 'tf'): answer.tf.config.set_visible_devices = lambda devices, kind: None",
        "for options in [SimpleNamespace(device='auto', processes=number, rank=0) for number in (1, 2, 3)]:",
        "    answer.set_up(options)",
        "    print(options.device)",
    ]
    result = run_python("-c", "\n".join(lines), cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "tools")})
    assert result.stdout.split() == ["cuda", "cuda", "cpu"], result.stderr


def test_the_benchmark_of_the_traps_can_plant_each():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import parallel_traps

    texts = {trap: parallel_traps.plant(trap) for trap in parallel_traps.TRAPS}
    assert len(set(texts.values())) == len(texts) - 1  # own_norm is an option alone
    for trap, text in texts.items():
        compile(text, trap, "exec")
