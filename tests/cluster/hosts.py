"""Simulated machines of a cluster, each in separate network, process and mount namespaces.

A machine consists of the processes in its namespaces. It ends when the first of them, its ssh
server, ends. Killing the server is like unplugging the machine: no process, interface or file
remains.
"""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests import ROOT

REPOSITORY = ROOT
HOME = Path("/mnt/home")
_PACKAGES = Path(sysconfig.get_path("purelib"))
_EXTRA = Path(sys.prefix, "hosts", _PACKAGES.relative_to(sys.prefix))
"""Further packages that a node needs; `make test-cluster` installs them."""
_PROGRAMS = ("ip", "unshare", "nsenter", "setpriv", "sshd", "ssh", "ssh-keygen", "rsync", "flock")
_SBIN = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def missing() -> str | None:
    """The requirement for running hosts that this machine lacks, or None."""
    if os.geteuid() != 0:
        return "hosts in network namespaces need root"
    absent = [name for name in _PROGRAMS if not shutil.which(name, path=_SBIN["PATH"])]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if not _EXTRA.exists():
        return "run `make test-cluster`, which installs the packages of a node"
    attempt = subprocess.run(
        ["unshare", "--net", "--mount", "ip", "link", "add", "type", "bridge"],
        env=_SBIN, capture_output=True, text=True,
    )  # fmt: skip
    return (
        f"network namespaces are not available: {attempt.stderr.strip()}"
        if attempt.returncode
        else None
    )


class Host:
    """A machine with an ssh server and a Python environment in its home folder."""

    def __init__(self, name: str, address: str, folder: Path, key: Path) -> None:
        """Create the host, switched off.

        Args:
            name: name of the host.
            address: IP address.
            folder: folder for the home folders and the shared folder of all hosts.
            key: file of a private key whose public key gives access to the host.
        """
        self.name = name
        self.address = address
        self._unshare: subprocess.Popen | None = None
        self.home = folder / name
        self.shared = folder / "shared"
        self.shared.mkdir(exist_ok=True)
        (self.home / ".ssh").mkdir(parents=True)
        shutil.copy(key.with_suffix(".pub"), self.home / ".ssh/authorized_keys")
        _environment(self.home / "env")
        # The hosts have no access to a package index and need nothing from one.
        (self.home / ".config/pip").mkdir(parents=True)
        pip = "[global]\nno-index = true\nno-build-isolation = false\n"  # false: do not isolate
        (self.home / ".config/pip/pip.conf").write_text(pip)

    def start(self) -> None:
        """Switch the host on and wait until it accepts connections."""
        self._log = (self.home / "host.log").open("w")
        self._unshare = subprocess.Popen(
            [
                # Nothing remains even if this process is killed.
                *("setpriv", "--pdeathsig", "KILL"),
                *("unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork"),
                *("--kill-child", "sh", Path(__file__).with_name("host.sh"), self.name),
                *(self.home, self.shared, REPOSITORY, _PACKAGES, _EXTRA),
            ],
            env=_SBIN,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        while "Server listening" not in (log := (self.home / "host.log").read_text()):
            assert self._unshare.poll() is None, log
            time.sleep(0.05)
        (self.init,) = psutil.Process(self._unshare.pid).children()
        self._space = _namespace(self.init)

    def kill(self) -> None:
        """Unplug the host, if it is on."""
        if self._unshare:
            for first in psutil.Process(self._unshare.pid).children():
                first.kill()
            self._unshare.wait()  # for the first process, which waits for all others
            self._unshare = None
            self._log.close()

    def command(self, *words: str | Path) -> list[str]:
        """The command line that runs a command on the host, in the repository's folder."""
        within = f"nsenter -t {self.init.pid} --net --pid --mount --uts --ipc".split()
        path = f"{HOME}/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = ["env", "-i", "--chdir=/mnt/repository", f"HOME={HOME}", f"PATH={path}"]
        return [*within, *clean, *map(str, words)]

    def processes(self, *words: str) -> list[psutil.Process]:
        """The host's processes whose command lines contain all `words`."""
        processes = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if all(word in line for word in words) and _namespace(process) == self._space:
                    processes.append(process)
            except (psutil.Error, OSError):
                continue  # it has ended
        return processes


@contextmanager
def network(hosts: list[Host]) -> Iterator[None]:
    """Switch the hosts on, and off at the end; the first host is the switch of the network."""
    try:
        for host in hosts:
            host.start()
        _ip(hosts[0], "link add switch type bridge")
        _ip(hosts[0], f"addr add {hosts[0].address}/24 dev switch")
        _ip(hosts[0], "link set switch up")
        # Packets to the internet are rejected at once. Otherwise Ray would wait for cloud services.
        _run_in(hosts[0], "sysctl", "--quiet", "net.ipv4.ip_forward=1")
        _ip(hosts[0], "route add unreachable default")
        for host in hosts[1:]:
            plug_in(host, hosts[0])
        yield
    finally:
        for host in hosts:
            host.kill()


def plug_in(host: Host, switch: Host) -> None:
    """Connect a running host."""
    _ip(switch, f"link add {host.name} type veth peer name eth0 netns {host.init.pid}")
    _ip(switch, f"link set {host.name} master switch up")
    _ip(host, f"addr add {host.address}/24 dev eth0")
    _ip(host, "link set eth0 up")
    # Ray uses the address of the default route.
    _ip(host, f"route add default via {switch.address}")


def _ip(host: Host, words: str) -> None:
    _run_in(host, "ip", *words.split())


def _run_in(host: Host, *words: str) -> None:
    within = ["nsenter", "-t", str(host.init.pid), "--net"]
    subprocess.run([*within, *words], env=_SBIN, check=True)


def _namespace(process: psutil.Process) -> Path:
    return Path(f"/proc/{process.pid}/ns/pid").readlink()


def _environment(folder: Path) -> None:
    """Create the Python environment of a host, with links to the packages of this environment.

    Copies would take gigabytes. The project itself is not linked: `ray up` copies it to the host.
    """
    venv.create(folder, symlinks=True)
    inside = folder / _PACKAGES.relative_to(sys.prefix)
    (inside / "borrowed.pth").write_text("/mnt/packages\n/mnt/extra\n")
    for name in ("ray", "mlflow"):
        _, _, script = (Path(sys.prefix) / "bin" / name).read_text().partition("\n")
        (folder / "bin" / name).write_text(f"#!{HOME}/env/bin/python\n{script}")
        (folder / "bin" / name).chmod(0o755)


def end(processes: list[psutil.Process]) -> None:
    """Kill processes immediately."""
    for process in processes:
        process.send_signal(signal.SIGKILL)
