"""Judging images that somebody names: one call, one result that one can hold, look at and keep."""
