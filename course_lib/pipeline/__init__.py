"""A whole model made small: what the chapters taught, one step behind the other."""
