"""The run folder: taken, kept, written, finished."""
