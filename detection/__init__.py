"""COCO detection and instance segmentation, in Detectron2 or torchvision, on any of our backbones."""
