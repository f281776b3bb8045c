"""Applications: the interactive feature explorer."""
