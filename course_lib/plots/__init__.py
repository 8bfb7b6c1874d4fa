"""Measurements in, figures out."""
