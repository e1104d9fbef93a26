"""What a job asks Slurm for, checked before anything is submitted."""

from dataclasses import dataclass

SHORTEST_MINUTES = 10


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each job of a launch asks for; the defaults are a single GPU for a day."""

    partition: str | None = None
    """Partition, or the cluster's default."""
    gpus_per_node: int = 1
    """GPUs, and as many processes, on each node; 0 for one process on CPUs."""
    nodes: int = 1
    """Nodes of each job."""
    cpus_per_task: int | None = None
    """CPU cores of each process; by default the run's loader processes and one. The process itself computes with as
    many threads as its loader leaves cores, unless OMP_NUM_THREADS says otherwise."""
    mem_gb: int | None = None
    """Memory of each node in GB, or the cluster's default."""
    time: float = 24.0
    """Hours until Slurm ends a job. It saves and queues again before that, so a run may take much longer."""
    save_seconds: int = 120
    """How long before that end Slurm says so."""
    max_timeouts: int = 100
    """How often a run may go on after such an end. Preemptions are not counted."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have."""
    array_parallelism: int | None = None
    """Runs of one job array at a time: 256 unless given. With --local, runs at a time: 1 unless given."""
    setup: tuple[str, ...] = ()
    """Shell lines run before each job, such as "module load cuda"."""
    sbatch: tuple[str, ...] = ()
    """More options for sbatch, as NAME=VALUE: mail-type=FAIL."""

    @property
    def num_tasks(self) -> int:
        """Processes that train a run together."""
        return self.nodes * max(self.gpus_per_node, 1)

    def cores(self, num_workers: int) -> int:
        """CPU cores of each process, for a run with so many loader processes."""
        return self.cpus_per_task or 1 + num_workers

    def threads(self, num_workers: int) -> int:
        """Threads a process computes with, which on CPUs decide the last bits of its results."""
        return max(self.cores(num_workers) - num_workers, 1)

    @property
    def minutes(self) -> float:
        """The time limit as Slurm and submitit count it."""
        return self.time * 60

    def problems(self) -> list[str]:
        """Everything wrong with these values; engine.config.check reports it."""
        least = {"gpus_per_node": 0, "nodes": 1, "cpus_per_task": 1, "mem_gb": 1, "save_seconds": 10,
                 "max_timeouts": 0, "array_parallelism": 1}  # fmt: skip
        values = {name: getattr(self, name) for name in least}
        found = [
            f"{name}: {value} is not {least[name]} or more"
            for name, value in values.items()
            if value is not None and value < least[name]
        ]
        found += [f"sbatch: {option!r} is not NAME=VALUE" for option in self.sbatch if "=" not in option]
        if self.minutes <= SHORTEST_MINUTES:
            found.append(
                f"time: {self.time:g} hours is {self.minutes:g} minutes; allowed: more than {SHORTEST_MINUTES}. "
                "submitit takes every signal within the last 10 minutes of a job, or its last fifth, for a time-out, "
                "so each preemption of so short a job would count against max_timeouts"
            )
        elif self.save_seconds >= self.minutes * 60 / 2:
            found.append(f"save_seconds: {self.save_seconds} is not below half of the {self.minutes:g} minutes of time")
        return found
