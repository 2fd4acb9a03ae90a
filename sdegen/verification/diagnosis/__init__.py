"""Diagnosis: which mistake explains stored states that do not follow what is believed."""
