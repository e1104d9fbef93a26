"""Masked image modelling pre-training: A2MIM and SimMIM for any timm network."""
