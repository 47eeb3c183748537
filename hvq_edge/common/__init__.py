"""What any room may use: files written whole, records, TOML, optional packages, progress."""
