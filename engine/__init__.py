"""What every run shares: run folders, checkpoints, data order, optimizers and the one training loop."""
