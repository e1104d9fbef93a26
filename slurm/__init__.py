"""Runs and sweeps as Slurm jobs, through submitit. State lives in run folders and in Slurm; we keep no other."""
