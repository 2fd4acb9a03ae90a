import diffrax
import jax
import jax.numpy as jnp


def one(key):
    brownian = diffrax.VirtualBrownianTree(0.0, 1.0, tol=1e-3, shape=(), key=key)
    terms = diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, x, args: -0.5 * x),
        diffrax.ControlTerm(lambda t, x, args: 0.8 * x, brownian),
    )
    solver = diffrax.StratonovichMilstein()
    return diffrax.diffeqsolve(terms, solver, 0.0, 1.0, dt0=0.01, y0=jnp.array(1.0)).ys[-1]


states = jax.vmap(one)(jax.random.split(jax.random.key(0), 10_000))
answer = states.mean()
