"""Layers: tar archives in, directories out."""
