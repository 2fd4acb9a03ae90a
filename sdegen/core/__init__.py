"""The core: the update, what moves, how one step goes, and what all rooms share."""
