"""Frequencies and variance of feature maps (Park and Kim, ICLR 2022, arXiv 2202.06709)."""
