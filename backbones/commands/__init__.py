"""The commands of `python -m backbones`, one a file: each adds its parser, whose `run` takes the parsed options."""
