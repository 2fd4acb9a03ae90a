"""What everything rests on: the update, what moves, and how one step goes."""
