TWO_BITS = None
