"""A surrogate of a recogniser that can only be asked."""
