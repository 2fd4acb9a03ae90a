"""Public names whose docstring has no equation or no shapes, with the reason; by room."""
