"""slurm.jsonl in a run folder: which jobs it was given to and what became of each attempt, one event per line.

listed     sweep, needs                      the run belongs to a sweep; `needs` are the runs it starts from
queued     host, pid, ...                    a --local sweep will start it in its turn, while that process lives
dropped                                      it will not: cancelled, or what it waits for has failed
submitted  job, logs, name, resources, ...   handed to Slurm (or to this machine, with --local)
started    job, host, tasks, log             an attempt began; its job is the last submitted one
preempted, timed out                         an attempt saved its state and asked to be queued again
requeued                                     as these, but Slurm had already queued it again
stopped                                      an attempt saved its state and ended, on request
failed     reason, exit_code, rank           an attempt ended
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ConfigError

FILE = "slurm.jsonl"
INTERRUPTIONS = ("preempted", "timed out", "requeued")


@dataclass(frozen=True)
class Record:
    """What a run folder knows about its jobs. `events` are those of the last submission, in order; `turn` is the newest
    of queued, dropped and submitted."""

    folder: Path
    sweeps: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    submitted: dict[str, Any] | None = None
    turn: dict[str, Any] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run's name, its folder's."""
        return self.folder.name

    @property
    def job(self) -> str | None:
        """Slurm's number of the last job, "123" or "123_4" in an array; "local-123" for one of this machine."""
        return self.submitted["job"] if self.submitted else None

    @property
    def is_local(self) -> bool:
        """Whether the last job was, or the next one is, one of --local."""
        return self.waits_here or (self.job is not None and self.job.startswith("local-"))

    @property
    def waits_here(self) -> bool:
        """Whether a --local sweep would start it in its turn; `turn` says which process that sweep is."""
        return self.turn is not None and self.turn["event"] == "queued"

    @property
    def log(self) -> Path | None:
        """Output of the first process of the last job, all attempts one after another; None before its submission."""
        if self.submitted is None:
            return None
        return Path(self.submitted["logs"]) / f"{self.submitted['job'].removeprefix('local-')}_0_log.out"

    def last(self, *names: str) -> dict[str, Any] | None:
        """The newest event of one of these names."""
        return next((event for event in reversed(self.events) if event["event"] in names), None)

    def count(self, name: str) -> int:
        """How many events have this name."""
        return sum(event["event"] == name for event in self.events)


def append(folder: Path, event: str, **values: Any) -> None:
    """Add a line; whole, whoever else is writing."""
    line = json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n"
    handle = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def read(folder: Path) -> Record:
    """The record of a run folder, empty if it has none."""
    rows = _rows(folder / FILE)
    listed = [row for row in rows if row["event"] == "listed"]
    submitted = next((row for row in reversed(rows) if row["event"] == "submitted"), None)
    job = submitted["job"] if submitted else None
    turns = [row for row in rows if row["event"] in ("queued", "dropped", "submitted")]
    return Record(
        folder,
        sweeps=tuple(dict.fromkeys(row["sweep"] for row in listed)),
        needs=tuple(listed[-1]["needs"]) if listed else (),
        submitted=submitted,
        turn=turns[-1] if turns else None,
        # By job, not by place in the file: a job may start before the line that says it was submitted is written.
        events=[row for row in rows if row.get("job") == job and row is not submitted],
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:  # torn by a full disk; the next line is whole again
            continue
    return rows


def find(runs_dir: Path, names: tuple[str, ...] = ()) -> list[Record]:
    """The records of the runs directly under a folder: all of them, or those of the named sweeps and runs.

    Raises:
        ConfigError: the folder or a name does not exist.
    """
    if not runs_dir.is_dir():
        raise ConfigError(f"{runs_dir}: no such folder of runs; say --runs-dir")
    records = [read(path.parent) for path in sorted(runs_dir.glob(f"*/{FILE}"))]
    if not names:
        return records
    chosen = [record for record in records if {record.name, *record.sweeps} & set(names)]
    known = {name for record in records for name in (record.name, *record.sweeps)}
    unknown = [name for name in names if name not in known]
    if unknown:
        sweeps = sorted({sweep for record in records for sweep in record.sweeps})
        raise ConfigError(
            f"{runs_dir} holds no run or sweep {', '.join(unknown)}; sweeps there: {', '.join(sweeps) or 'none'}"
        )
    return chosen
