"""Identities: what states in any dimension must obey on average, without a density."""
