"""Adaptors: networks trained elsewhere as our scores, and our scores as theirs."""
