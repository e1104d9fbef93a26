"""Weights in files, under everybody's names, into networks and out of them."""
