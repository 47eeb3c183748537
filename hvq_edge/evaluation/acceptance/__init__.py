"""The acceptance report that a quality manager signs."""
