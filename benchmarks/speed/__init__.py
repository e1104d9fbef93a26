"""What a step, an image and a batch cost, as ratios of alternating timings."""
