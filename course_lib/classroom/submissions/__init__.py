"""What comes back from students: archives, notebooks, cells, answers. All of it may be broken."""
