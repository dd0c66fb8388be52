"""Sampan: a complete container platform in Python."""
