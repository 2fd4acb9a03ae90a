import diffrax
import jax
import jax.numpy as jnp


def drift(t, x, args):
    return x - x**3


def diffusion(t, x, args):
    return 0.7 * jnp.ones(1)[:, None]


def one(key):
    brownian = diffrax.VirtualBrownianTree(0.0, 4.0, tol=1e-3, shape=(1,), key=key)
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, brownian))
    return diffrax.diffeqsolve(
        terms, diffrax.Euler(), t0=0.0, t1=4.0, dt0=0.02, y0=jnp.zeros(1)
    ).ys[-1]


states = jax.vmap(one)(jax.random.split(jax.random.key(0), 10_000))
answer = states.var()
