"""A method's result as bytes, and back: tensors become named parts, parts become tensors."""
