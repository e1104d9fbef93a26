"""A real Slurm on one machine for the tests: munged, slurmctld and four slurmd, without systemd, cgroups or /etc.

`python -m tests.slurm.cluster start` leaves one running (`source ROOT/environment` reaches it), `... stop` ends it.
Everything lives in one folder and listens on loopback. Four nodes of 8 CPUs and 2 fake GPUs each. Partition `low` has
two of them and is preempted by `high`; `apart` has the others; jobs sent to `closed` stay pending.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
TOOLS = ("sbatch", "srun", "scontrol", "squeue", "scancel")
INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
# Spellings of 127.0.0.1 to 127.0.0.4 that need no /etc/hosts: ranks find their master.
NODES = ("0x7f000001", "0x7f000002", "0x7f000003", "0x7f000004")
DEFAULT_ROOT = Path(tempfile.gettempdir()) / "slurm-for-tests"
SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

# MinJobAge: ended jobs stay visible, for the sacct beside this file. cred_expire: how long a requeued job waits, 120 s
# by default. GraceTime with preempt_send_user_signal: preemption sends the job's --signal and leaves it time to save.
CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldParameters=preempt_send_user_signal
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
LaunchParameters=disable_send_gids
PropagateResourceLimitsExcept=ALL
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
FirstJobId={first_job}
MaxArraySize=1001
MaxJobCount=5000
MinJobAge=86400
KillWait=60
InactiveLimit=0
ReturnToService=2
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=8000 Gres=gpu:2\n"
PARTITIONS = """\
PartitionName=DEFAULT MaxTime=INFINITE State=UP PreemptMode=OFF Nodes=0x7f000001,0x7f000002
PartitionName=low Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high PriorityTier=10
PartitionName=apart Nodes=0x7f000003,0x7f000004
PartitionName=closed State=DOWN
"""


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    absent = [name for name in (*DAEMONS, *TOOLS) if shutil.which(name, path=SEARCH) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)} missing): {INSTALL}"
    return "" if os.geteuid() == 0 else "starting slurmctld and slurmd for the tests needs root"


class Cluster:
    """A private Slurm in a folder; `start` and `stop` may be called from different processes."""

    def __init__(self, root: Path = DEFAULT_ROOT) -> None:
        self.root = root  # short: a socket's path has at most 107 characters

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach this cluster and no other."""
        shims = self.root / "bin"
        return {"SLURM_CONF": str(self.root / "slurm.conf"), "PATH": f"{shims}:{SEARCH}", "GLOO_SOCKET_IFNAME": "lo"}

    def start(self) -> "Cluster":
        """Write the configuration, start the daemons and wait until all nodes are idle."""
        if self.root.exists():
            self.stop()  # what a killed test session left
        for name in ("bin", "state", "dev", *(f"spool-{node}" for node in NODES)):
            (self.root / name).mkdir(parents=True)
        (self.root / "bin/sacct").symlink_to(Path(__file__).with_name("sacct"))
        self._configure()
        munge = ("--socket", self.root / "munge.socket", "--key-file", self.root / "munge.key")
        files = [f"--{kind}-file={self.root}/munged.{kind}" for kind in ("pid", "log", "seed")]
        self._spawn("munged", "--foreground", "--force", "--num-threads=2", *munge, *files)
        self._wait("munged", 60, lambda: self._answers("munge", "-S", str(self.root / "munge.socket"), "-n"))
        self._spawn("slurmctld", "-D", "-c", "-i")
        for node in NODES:
            self._spawn("slurmd", "-D", "-N", node, name=f"slurmd-{node}")
        self._wait("idle nodes", 300, self._is_up)
        exports = "".join(f"export {name}={value}\n" for name, value in self.environment.items())
        (self.root / "environment").write_text(exports)
        return self

    def stop(self) -> None:
        """End jobs, then daemons, each only if its process is still the one started here; remove the folder."""
        if self._answers("scontrol", "ping"):
            self._run("scancel", "--full", "--user", pwd.getpwuid(os.geteuid()).pw_name)
            self._wait("the jobs' end", 30, lambda: not self._run("squeue", "-h").stdout.strip(), must=False)
        for number in (signal.SIGTERM, signal.SIGKILL):
            processes = self._processes()
            for process in processes:
                _send(process, number)
            self._wait("the daemons' end", 15, lambda: not self._processes(), must=False)
        shutil.rmtree(self.root, ignore_errors=True)

    def _configure(self) -> None:
        host, sockets = socket.gethostname().split(".")[0], [socket.socket() for _ in range(1 + len(NODES))]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        nodes = "".join(NODE.format(name=n, host=host, port=p) for n, p in zip(NODES, ports[1:], strict=True))
        # Job numbers go on from those of an earlier cluster: nothing on disk can be taken for a new job's.
        first_job, user = int(time.time()) % 10**7 * 10 + 1, pwd.getpwuid(os.geteuid()).pw_name
        conf = CONF.format(host=host, ports=ports, root=self.root, user=user, first_job=first_job)
        (self.root / "slurm.conf").write_text(conf + nodes + PARTITIONS)
        for gpu in range(2):  # only a device node makes Slurm set CUDA_VISIBLE_DEVICES; these are twins of /dev/null
            os.mknod(self.root / f"dev/gpu{gpu}", 0o20666, os.makedev(1, 3))
        (self.root / "gres.conf").write_text(f"Name=gpu File={self.root}/dev/gpu[0-1]\n")
        key = self.root / "munge.key"
        key.touch(0o400)
        key.write_bytes(secrets.token_bytes(1024))

    def _spawn(self, *command: str | Path, name: str = "") -> None:
        name = name or str(command[0])
        with (self.root / f"{name}.out").open("ab") as out:
            environment = {**_clean_environment(), **self.environment}
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
            )
        _STARTED.append(process)

    def _run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        environment = {**_clean_environment(), **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def _answers(self, *command: str) -> bool:
        return (self.root / "slurm.conf").is_file() and self._run(*command).returncode == 0

    def _is_up(self) -> bool:
        idle = self._run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N")
        return len(set(idle.stdout.split())) == len(NODES)

    def _wait(self, what: str, seconds: float, ready: "object", *, must: bool = True) -> None:
        deadline = time.monotonic() + seconds
        while not ready():  # type: ignore[operator]
            if time.monotonic() > deadline:
                if not must:
                    return
                logs = "".join(f"\n--- {p.name}\n{p.read_text()[-1500:]}" for p in sorted(self.root.glob("*.out")))
                raise RuntimeError(f"no {what} within {seconds:.0f} s{logs}")
            time.sleep(0.1)

    def _processes(self) -> list[int]:
        """Daemons, steps and jobs of this cluster: processes with its SLURM_CONF and a name or a job of Slurm."""
        for process in _STARTED:
            process.poll()
        mark = f"SLURM_CONF={self.root / 'slurm.conf'}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                name = (folder / "comm").read_text().strip()
            except OSError:
                continue
            ours = name in (*DAEMONS, "slurmstepd") or any(v.startswith(b"SLURM_JOB_ID=") for v in variables)
            if mark in variables and ours and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        return found


_STARTED: "list[subprocess.Popen[bytes]]" = []


def _clean_environment() -> dict[str, str]:
    dropped = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


if __name__ == "__main__":
    cluster = Cluster(Path(sys.argv[2]) if len(sys.argv) > 2 else DEFAULT_ROOT)
    if sys.argv[1:2] == ["stop"]:
        cluster.stop()
    elif sys.argv[1:2] == ["start"]:
        if missing():
            sys.exit(missing())
        print((cluster.start().root / "environment").read_text(), end="")
    else:
        sys.exit("usage: python -m tests.slurm.cluster start|stop [FOLDER]")
