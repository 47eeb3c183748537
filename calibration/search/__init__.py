"""Which layers run in int8."""
