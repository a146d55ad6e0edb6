"""A private Slurm for tests: real daemons on loopback, without systemd, several side by side.

As the user that runs the tests, with a munge key, ports and a folder of its own; its daemons are children of this
process and end with it. Of Debian it needs the packages that `missing` names.
"""

import contextlib
import ctypes
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import TypeVar

import psutil

from tests.slurm.job import Job

TEMPLATE = Template(Path(__file__).with_name("slurm.conf.template").read_text())
PATH = f"{os.environ['PATH']}:/usr/sbin"
"""Where Debian has the daemons."""
HOST = socket.gethostname().partition(".")[0]

Fact = TypeVar("Fact")


def missing() -> str | None:
    """Why there can be no cluster here; None where there can."""
    needed = ("slurmctld", "slurmd", "munged", "sbatch", "srun")
    absent = [name for name in needed if shutil.which(name, path=PATH) is None]
    if absent:
        packages = "apt-get install slurmctld slurmd slurm-client munge"
        return f"no {', '.join(absent)} on this machine ({packages})"
    try:
        address = socket.gethostbyname(HOST)
    except OSError:
        address = "nothing"
    if not address.startswith("127."):
        return f"the host name {HOST} resolves to {address}, not 127.*: its line is missing in /etc/hosts"
    return None


def wait_for(fact: Callable[[], Fact], what: str, *, seconds: float = 90) -> Fact:
    """Ask again and again until the answer is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < end, f"after {seconds:.0f} s still not so: {what}"
        time.sleep(0.1)
    return found


def free_ports(number: int) -> list[int]:
    """Ports in a row that nobody listens at, below those that the kernel gives to clients."""
    while True:
        ports = range(start := random.randrange(10_000, 20_000 - number), start + number)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in ports:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return list(ports)


def end_with_parent() -> None:
    """In a child: SIGTERM when the tests are gone, however they ended."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Cluster:
    """`with Cluster(folder) as cluster`: nodes n1, n2, ... are idle inside, all is gone afterwards."""

    def __init__(
        self, folder: Path, *, nodes: int = 2, cpus: int = 4, mem_mb: int = 8000, gpus: int = 2
    ) -> None:
        self.folder = folder
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus, self.mem_mb, self.gpus = cpus, mem_mb, gpus
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.own_etc = False

    @property
    def environment(self) -> dict[str, str]:
        """For everything that talks to this cluster."""
        return self.known_to(os.environ | {"PATH": PATH})

    def known_to(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The same, with this cluster in place of one that the tests themselves may be a job of."""
        kept = {name: value for name, value in environment.items() if not name.startswith("SLURM_")}
        path = f"{self.folder}/bin:{environment['PATH']}"
        return {**kept, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def __enter__(self) -> "Cluster":
        self.write_configuration()
        try:
            self.start("munged", "munged", "--foreground", *self.munge_options())
            wait_for((self.folder / "munge.socket").exists, "munged listens")
            self.start("slurmctld", "slurmctld", "-D")
            for node in self.nodes:
                self.start_node(node)
            wait_for(self.all_idle, "all nodes are idle")
        except BaseException as error:
            error.add_note(self.last_words())
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AssertionError, subprocess.SubprocessError):
            self.scancel_all()
        self.stop()

    def write_configuration(self) -> None:
        """All files that the daemons and commands read."""
        for name in ("bin", "etc", "state", *self.nodes):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge.key").touch(mode=0o600)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        port, *ports = free_ports(1 + len(self.nodes))
        has = f"CPUs={self.cpus} CoresPerSocket={self.cpus} RealMemory={self.mem_mb} Gres=gpu:test:{self.gpus}"
        lines = [
            f"NodeName={node} NodeHostname={HOST} NodeAddr=127.0.0.1 Port={number} {has}"
            for node, number in zip(self.nodes, ports, strict=True)
        ]
        text = TEMPLATE.substitute(
            folder=self.folder,
            host=HOST,
            user=getpass.getuser(),
            port=port,
            first_job=random.randrange(1, 10_000),
            nodes="\n".join(lines),
        )
        (self.folder / "slurm.conf").write_text(text)
        # Slurm wants a device for each GPU, to say in CUDA_VISIBLE_DEVICES which were granted.
        for number in range(self.gpus):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        devices = f"{self.folder}/gpu[0-{self.gpus - 1}]"
        gres = (
            f"AutoDetect=off\nNodeName=n[1-{len(self.nodes)}] Name=gpu Type=test File={devices}\n"
        )
        (self.folder / "gres.conf").write_text(gres)
        self.replace_etc()

    def replace_etc(self) -> None:
        """Inside jobs, too, commands shall find this cluster, although Snakemake takes SLURM_CONF away there.

        Root gives every node an /etc/slurm of its own. Others get an srun that knows the way.
        """
        (self.folder / "etc/slurm.conf").symlink_to(self.folder / "slurm.conf")
        (self.folder / "etc/plugstack.conf").touch()
        self.own_etc = run_quietly("unshare", "-m", "sh", "-c", f"{self.bind} && true") == 0
        if not self.own_etc:
            wrapper = self.folder / "bin/srun"
            real, conf = shutil.which("srun"), self.folder / "slurm.conf"
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {real} "$@"\n')
            wrapper.chmod(0o755)

    @property
    def bind(self) -> str:
        return f"mount --bind {self.folder}/etc /etc/slurm"

    def munge_options(self) -> list[str]:
        names = ("key-file", "pid-file", "seed-file", "socket")
        own = [f"--{name}={self.folder}/munge.{name.removesuffix('-file')}" for name in names]
        return ["--force", *own]

    def start(self, name: str, *command: str) -> None:
        """A daemon in the foreground, as a child of this process."""
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def start_node(self, node: str) -> None:
        daemon = ("slurmd", "-D", "-N", node)
        bound = ("unshare", "-m", "sh", "-c", f'{self.bind} && exec "$@"', "sh")
        self.start(node, *(bound if self.own_etc else ()), *daemon)

    def stop(self) -> None:
        """Nodes first; what is left of their jobs goes with them."""
        for name in reversed([*self.daemons]):
            left = self.processes_of(name) if name in self.nodes else []
            daemon = self.daemons.pop(name)
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait()
            kill(left)

    # What tests ask and do.

    def run(self, *command: str, check: bool = True) -> str:
        """The output of a Slurm command; "" where it fails and need not succeed."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout if done.returncode == 0 else ""

    def jobs(self) -> list[Job]:
        """All jobs, in the order of their ids."""
        text = self.run("scontrol", "show", "job", "--oneliner", check=False)
        found = [Job.parse(line) for line in text.splitlines() if line.startswith("JobId=")]
        return sorted(found, key=lambda job: int(job.id))

    def job(self, id: str) -> Job:
        return next(job for job in self.jobs() if job.id == id)

    def scancel_all(self) -> None:
        """Cancel every job, and wait until nothing of any is left."""
        self.run("scancel", "--quiet", "--user", getpass.getuser())
        wait_for(lambda: not self.run("squeue", "--noheader"), "all jobs have ended")

    def requeue(self, job: str) -> None:
        self.run("scontrol", "requeue", job)

    def expire(self, job: str, *, minutes: int = 0) -> None:
        """Its time is over then; Slurm looks every 30 s for jobs to warn and to end."""
        self.run("scontrol", "update", f"jobid={job}", f"EndTime=now+{minutes}minutes")

    def kill_node(self, node: str) -> None:
        """The power fails: its daemon and all of its jobs' processes are gone.

        The controller would notice when SlurmdTimeout is over; here it is told.
        """
        left, daemon = self.processes_of(node), self.daemons.pop(node)
        daemon.kill()
        daemon.wait()
        kill(left)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")

    def revive_nodes(self) -> None:
        """Every node is up and idle again."""
        for node in self.nodes:
            if node not in self.daemons:
                self.start_node(node)
        wait_for(self.all_idle, "all nodes are idle again")

    def all_idle(self) -> bool:
        """Whether they are; those that are down are asked to come back."""
        dead = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
        assert not dead, f"{dead} ended.\n{self.last_words()}"
        states = self.run(
            "sinfo", "--noheader", "--Node", "-p", "batch", "-o", "%N %T", check=False
        )
        found = dict(line.split() for line in states.splitlines())
        for node in self.nodes:
            if found.get(node, "").startswith(("down", "drain")):
                self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        return [found.get(node) for node in self.nodes] == ["idle"] * len(self.nodes)

    def processes_of(self, node: str) -> list[psutil.Process]:
        """Of the jobs on a node: each step's daemon, which writes to the node's log, and all that it started."""
        log, found = str(self.folder / f"{node}.log"), []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == "slurmstepd" and log in {f.path for f in process.open_files()}:
                    found += [process, *process.children(recursive=True)]
        return found

    def last_words(self) -> str:
        """The ends of the daemons' logs; of one that has none yet, what it printed."""
        logs = [self.folder / f"{name}.log" for name in self.daemons]
        ends = [lines_of(log if log.exists() else log.with_suffix(".out"))[-12:] for log in logs]
        return "\n".join(
            "\n".join([f"--- {log.stem}", *end]) for log, end in zip(logs, ends, strict=True)
        )


def lines_of(log: Path) -> list[str]:
    """Its lines, apart from those that every start has."""
    return [line for line in log.read_text(errors="replace").splitlines() if "pmix" not in line]


def run_quietly(*command: str) -> int:
    return subprocess.run(command, capture_output=True).returncode


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL to those that still are what they were."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
