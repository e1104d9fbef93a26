"""Semantic segmentation on ADE20K with MMSegmentation's models, data set, transforms and metric under our loop."""
