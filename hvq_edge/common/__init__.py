"""What every room uses: files written whole, records, progress, colours."""
