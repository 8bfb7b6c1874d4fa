"""Low rank: a weight as the product of two small matrices, or its change as one."""
