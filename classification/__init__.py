"""Image classification: fine-tuning, training from scratch and linear probing on ImageNet-style folders."""
