"""How a classifier holds on pictures unlike its training set: ImageNet-C, A, R, Sketch, V2 and the ReaL labels."""
