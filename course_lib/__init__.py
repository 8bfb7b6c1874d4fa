"""Removing Redundancy: the helper library of the course."""
