"""Run folders read with suspicion and judged."""
