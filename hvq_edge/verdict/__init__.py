"""Whether a part is rejected: from an engine's output to pass, reject or no_decision."""
