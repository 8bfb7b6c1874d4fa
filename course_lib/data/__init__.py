"""Texts and images that arrive with packages, and seeded batches of them."""
