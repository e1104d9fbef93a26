"""Pre-training and fine-tuning side by side, on real data or generated scenes; throughput."""
