"""One prepared check of a machine with a GPU: correctness, speed, where the time goes."""
