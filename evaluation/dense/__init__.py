"""What frozen features know of places: segmentation by the nearest patches, or by a linear head."""
