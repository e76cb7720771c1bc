"""The JobSet for Google Kubernetes Engine and the image it runs: fields that belong together, and what follows a failure."""

import re
from pathlib import Path
from typing import Any

import yaml

from ove.distributed import EXIT_PREEMPTED
from ove.train.hosts.watchdog import EXIT_STUCK

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "launch" / "cluster"


def test_the_job_set_has_what_a_job_set_needs() -> None:
    job_set = yaml.safe_load((CLUSTER / "gke_jobset.yaml").read_text())
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job_set["metadata"]["name"])
    (part,) = job_set["spec"]["replicatedJobs"]
    job = part["template"]["spec"]
    assert job["parallelism"] == job["completions"] and job["backoffLimit"] == 0 and part["replicas"] >= 1
    pod = job["template"]["spec"]
    # podFailurePolicy is only allowed with it.
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    x, y, z = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert x * y * z == chips * job["parallelism"]
    assert container["command"] == ["python", "-m", "launch.train"]
    assert any(word.startswith("--config=") for word in container["args"])
    assert any(word.startswith("--workdir=/data/") for word in container["args"])
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == volumes.keys()
    # Grain's processes hand over batches there; what Kubernetes gives by itself is smaller than one.
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def action_of(job_set: dict[str, Any], code: int | None = None, condition: str = "") -> str:
    """What Kubernetes' job controller, then the JobSet controller, make of a pod that failed, by their documents."""
    (part,) = job_set["spec"]["replicatedJobs"]
    job = part["template"]["spec"]
    assert job["backoffLimit"] == 0
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        assert rule["action"] == "FailJob"
        if code in rule.get("onExitCodes", {}).get("values", ()):
            text = f"Container {rule['onExitCodes']['containerName']} for pod ns/pod failed with exit code {code}"
        elif {"type": condition, "status": "True"} in rule.get("onPodConditions", ()):
            text = f"Pod ns/pod has condition {condition}"
        else:
            continue
        reason, message = "PodFailurePolicy", f"{text} matching FailJob rule at index {index}"
        break
    for rule in job_set["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(pattern, message) for pattern in patterns):
            return str(rule["action"])
    return "RestartJobSet"


def test_the_job_set_counts_failures_but_not_evictions_and_ends_where_a_restart_cannot_help() -> None:
    job_set = yaml.safe_load((CLUSTER / "gke_jobset.yaml").read_text())
    assert job_set["spec"]["failurePolicy"]["maxRestarts"] > 0
    containers = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    rules = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == {containers[0]["name"]}
    assert action_of(job_set, code=1) == action_of(job_set, code=2) == "FailJobSet"
    assert action_of(job_set, code=EXIT_PREEMPTED) == "RestartJobSetAndIgnoreMaxRestarts"
    assert action_of(job_set, code=137, condition="DisruptionTarget") == "RestartJobSetAndIgnoreMaxRestarts"
    for code in (69, EXIT_STUCK, 134, 137):
        assert action_of(job_set, code=code) == "RestartJobSet"


def test_the_image_holds_what_the_command_needs() -> None:
    copied = {
        word
        for line in (CLUSTER / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY")
        for word in line.split()[1:-1]
    }
    assert {"ove", "launch", "configs", "requirements*.txt", "pyproject.toml"} <= copied
    for name in copied:
        assert list(ROOT.glob(name)), name
