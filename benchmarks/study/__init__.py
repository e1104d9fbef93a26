"""Studies that are repeated with one command: real pictures, every method, shares of the labels, seeds, intervals."""
