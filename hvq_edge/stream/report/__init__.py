"""What happened on a line between two moments: the shift report."""
