"""Many methods, one after the other, on one model: a recipe in, a file and a report out."""
