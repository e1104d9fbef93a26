"""The images of a run, and which of them stand in which batch."""
