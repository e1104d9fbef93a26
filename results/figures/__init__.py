"""Figures from run folders and rows."""
