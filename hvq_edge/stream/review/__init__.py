"""What people say of decisions: which are shown to them, what they said, and what follows."""
