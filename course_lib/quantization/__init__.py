"""Quantization: fewer bits for each weight."""
