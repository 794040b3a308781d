"""A sweep on a cluster of two machines that `ray up` starts from a third, the laptop.

Run as root by `make test-cluster`; takes some minutes.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from memmeta.system import provenance
from sweeps.engine.stores.store import default_uri
from sweeps.engine.study import design
from sweeps.engine.study.outcome import TAGS
from sweeps.glyphs import STUDY
from tests.cluster.hosts import HOME, REPOSITORY, Host, end, missing, network

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

CONFIG = HOME / "onprem.yaml"
SUBMIT = ("ray", "submit", CONFIG, "sweeps/glyphs.py", "--trials", "6", "--iterations", "60")
BRIEF = STUDY.changed(training=STUDY.training.model_copy(update={"iterations": 60, "tasks": None}))
"""The study with these options."""


class Lab:
    """A laptop, and the two machines of `cluster/onprem.yaml`."""

    def __init__(self, folder: Path) -> None:
        key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.laptop = Host("laptop", "10.77.0.1", folder, key)
        self.head = Host("head", "10.77.0.2", folder, key)
        self.worker = Host("worker", "10.77.0.3", folder, key)
        self.hosts = [self.laptop, self.head, self.worker]
        key.rename(self.laptop.home / ".ssh/id_ed25519")
        # The shipped file with the edits that it asks for.
        config = yaml.safe_load((REPOSITORY / "cluster/onprem.yaml").read_text())
        config["provider"]["head_ip"] = self.head.address
        config["provider"]["worker_ips"] = [self.worker.address]
        config["auth"]["ssh_user"] = "root"
        (self.laptop.home / CONFIG.name).write_text(yaml.safe_dump(config))

    def start(self, *words: str | Path) -> subprocess.Popen:
        """Start a command on the laptop."""
        print("$", *words)
        return subprocess.Popen(
            self.laptop.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str | Path) -> str:
        """Run a command on the laptop that must succeed, and return its output."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output[-5000:]
        return output

    def submit(self) -> subprocess.Popen:
        return self.start(*SUBMIT)

    def under_way(self, host: Host) -> list[str]:
        """The trials on a machine, such as `explore-001`, from the folders of their workers."""
        names = []
        for worker in host.processes("ray::", ".train"):
            with suppress(psutil.Error):  # it has ended
                names.append(Path(worker.cwd()).name)
        return names

    def interruptible(self, host: Host) -> str | None:
        """The trial of stage explore that a machine runs, once it has a checkpoint."""
        for name in self.under_way(host):
            if name.startswith("explore") and self.checkpoint(name).exists():
                return name
        return None

    def checkpoint(self, name: str) -> Path:
        point = design.sobol_point(BRIEF, 0, int(name.removeprefix("explore-")))
        folder = self.head.shared / "memmeta/runs" / BRIEF.sweep_name(0) / "checkpoints"
        return folder / BRIEF.run_config(point, 0).key / "trainer.pt"


@pytest.fixture
def lab(tmp_path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    with network(lab.hosts):
        yield lab
    assert not any(host.processes() for host in lab.hosts)


def wait(until: Callable[[], object], process: subprocess.Popen) -> object:
    """Wait until `until` returns a true value, and return it. The process must not end before."""
    deadline = time.monotonic() + 600
    while not (found := until()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.2)
    return found


def test_a_sweep_survives_the_loss_of_a_machine_and_of_the_driver(lab):
    commit = provenance.commit()
    lab.run("ray", "get-auth-token", "--generate")
    lab.run("ray", "up", "-y", CONFIG)
    joined = "until ray status | grep -q '^ 2 local.cluster.node'; do sleep 1; done"
    lab.run("ray", "exec", CONFIG, joined)
    assert_an_edit_reaches_all(lab)

    first = lab.submit()
    wait(lambda: lab.under_way(lab.head) and lab.under_way(lab.worker), first)
    lost = wait(lambda: lab.interruptible(lab.worker), first)
    lost_at = time.time()
    lab.worker.kill()
    # Another machine continues its trial, which the loss of the driver interrupts again.
    wait(lambda: lost in lab.under_way(lab.head), first)
    end(lab.head.processes("glyphs.py"))
    output, _ = first.communicate(timeout=60)
    assert first.returncode != 0, output

    assert "6 of 6 trials" in (output := lab.run(*SUBMIT)), output
    lab.run("ray", "exec", CONFIG, "python -m sweeps doctor")
    assert_results_are_complete(lab, commit, lost, lost_at)
    lab.run("ray", "down", "-y", CONFIG)
    assert not lab.head.processes("raylet")


def assert_an_edit_reaches_all(lab: Lab) -> None:
    """An edit reaches all machines by the two commands of `docs/how-to/cluster.md`."""
    files = [host.home / "src/sweeps/glyphs.py" for host in (lab.head, lab.worker)]
    for file in files:
        file.write_text("as it was before")
    lab.run("ray", "rsync-up", CONFIG)
    lab.run("ray", "exec", CONFIG, "ray rsync-up --all-nodes ~/ray_bootstrap_config.yaml")
    assert {file.read_text() for file in files} == {(REPOSITORY / "sweeps/glyphs.py").read_text()}


def assert_results_are_complete(lab: Lab, commit: str, lost: str, lost_at: float) -> None:
    """The results that the laptop fetches are complete."""
    lab.run("ray", "rsync-down", CONFIG, "~/mlflow/", HOME / "results")
    where = "--storage", HOME / "results"
    trials = json.loads(lab.run("python", "-m", "analysis", "trials", "glyphs", "--json", *where))
    assert [trial["status"] for trial in trials] == ["complete"] * 6
    best = "--top", "1", "--out", HOME / "best.yaml"
    lab.run("python", "-m", "analysis", "export", "glyphs", *best, *where)
    assert (lab.laptop.home / "best.yaml").exists()

    client = MlflowClient(default_uri(lab.laptop.home / "results"))
    (experiment,) = client.search_experiments(filter_string=f"name = '{STUDY.name}'")
    runs = client.search_runs([experiment.experiment_id], f"tags.`{TAGS.kind}` = 'trial'")
    assert {run.data.tags[TAGS.commit] for run in runs} == {commit}
    (run,) = (r for r in runs if r.data.tags[TAGS.key] == lab.checkpoint(lost).parent.name)
    history = client.get_metric_history(run.info.run_id, "val_accuracy")
    begun, ended = (point.timestamp / 1000 for point in history)
    assert begun < lost_at < ended
