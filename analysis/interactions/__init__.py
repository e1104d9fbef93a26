"""Multi-order interactions between parts of an image (Deng et al., ICLR 2022, arXiv 2111.06236)."""
