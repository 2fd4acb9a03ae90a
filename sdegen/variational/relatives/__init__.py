"""Relatives of the variational autoencoder: other priors to match, other likelihoods to learn."""
