"""Questions: what is asked of a density on a line, at rest, in time and on its way out."""
