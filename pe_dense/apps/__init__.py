"""Applications built on the library."""
