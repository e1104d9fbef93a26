"""What the loop carries from step to step, and what it obeys."""
