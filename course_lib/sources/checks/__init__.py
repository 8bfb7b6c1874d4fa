"""One small function a claim: it computes the thing, asserts the verdict and says what it found.

A check draws its numbers from seeds, takes milliseconds, and returns one sentence.
"""
