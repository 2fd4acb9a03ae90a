"""Latent variables: Gaussians, bounds of log p, and models that are trained by them.

Example:
    >>> p, q = sg.Gaussian([0.0], 1.0), sg.Gaussian([1.0], 4.0)
    >>> f"{sg.variational.kl_divergence(p, q).value:.4f}"  # ½ (1/4 + 1/4 − 1 + log 4)
    '0.4431'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "continuous_flows": ["ContinuousFlowLikelihood"],
        "divergences": ["DivergenceEstimate", "jensen_shannon", "kl_divergence"],
        "experts": ["ConditionalLikelihood", "MixtureOfExperts"],
        "flows": ["Flow", "FlowLikelihood"],
        "gaussians": ["Gaussian", "product_of_experts"],
        "identities": ["BoundTerms", "LinearGaussianModel", "bound_terms"],
        "predictors": ["PredictorTerms", "predictor_terms", "predictor_weights"],
        "networks": ["Perceptron"],
        "relatives.adversarial": ["GAN", "GANLoss"],
        "relatives.adversarial_prior": ["AdversarialAutoencoder", "AdversarialLoss"],
        "relatives.autoencoder": ["Autoencoder"],
        "relatives.discrepancy": ["MMDLoss"],
        "relatives.quantised": ["VQLoss", "VQVAE"],
        "relatives.vae_gan": ["VAEGAN", "VAEGANLoss"],
        "schedule": [
            "LearnedSchedule",
            "ScheduleLoss",
            "VariationalDiffusion",
            "VariationalDiffusionLoss",
        ],
        "timed_bound": ["TimedBound", "timed_bound"],
        "vae": ["VAE", "VAELoss", "VariationalBound"],
        "hierarchical_bound": [
            "HierarchicalLoss",
            "hierarchical_bound",
            "independent_consistency",
        ],
        "hierarchy": ["HierarchicalVAE", "exact_decoders"],
        "levels": ["LinearGaussian"],
    },
)
