"""Programs that provoke a message with advice, and the same programs with the advice followed."""
