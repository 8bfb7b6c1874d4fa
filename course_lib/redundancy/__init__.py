"""Measure what a training text and a model hold twice, or hold for nothing."""
