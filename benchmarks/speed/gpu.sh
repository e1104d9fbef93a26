#!/usr/bin/env bash
# Check and measure a machine's GPU with its own Python, torch and timm, without a network: benchmarks/speed/gpu.sh
# [--output DIR] [--parts ...] [--budget-seconds N]. What that Python lacks comes from wheelhouse/, which
# `make wheelhouse` fills beforehand, and is installed into a temporary folder. PYTHON names another interpreter;
# MIM_DEVICE=cpu runs everything small on a CPU.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
python="${PYTHON:-python3}"
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
"$python" "$root/benchmarks/speed/wheels.py" install "$root/wheelhouse" "$site"
export PYTHONPATH="$site:$root${PYTHONPATH:+:$PYTHONPATH}" MIM_TRACKERS= PYTHONUNBUFFERED=1
"$python" -m benchmarks gpu-check "$@"
