"""A score judged from held-out data in any dimension: noised rows, fields, corrections, slopes."""
