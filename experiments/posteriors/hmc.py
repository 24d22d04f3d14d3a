"""Posterior of a small network by the No-U-Turn sampler of NumPyro.

Imported in a process of its own (`experiments.posteriors.reference`): once JAX is loaded, every
fork of the process warns.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.distributions import Normal
from numpyro.infer import MCMC, NUTS

from experiments.posteriors.layout import EPSILON, Layout, Part
from experiments.posteriors.reference import Answer, Problem, Settings


def outputs(layout: Layout, vector: jax.Array, examples: jax.Array, points: jax.Array) -> jax.Array:
    """Outputs at the examples and then at the points, with the statistics of the examples."""
    count = len(examples)
    values = jnp.concatenate([examples, points])

    def taken(part: Part) -> jax.Array:
        return part.scale * vector[part.start : part.end].reshape(part.shape)

    for index, parts in enumerate(layout.layers()):
        if "weight" in parts:
            values = values @ taken(parts["weight"])
        if "gamma" in parts:
            seen = values[:count]
            root = jnp.sqrt(seen.var(0) + EPSILON)
            values = (values - seen.mean(0)) * (taken(parts["gamma"]) / root)
        values = values + taken(parts["bias"])
        if index < len(layout.hidden):
            values = jax.nn.relu(values)
    return values[:, 0]


@cache
def sampler(layout: Layout, settings: Settings) -> MCMC:
    """The sampler, which is compiled once for all problems of one size."""

    def model(examples: jax.Array, targets: jax.Array, noise: float) -> None:
        vector = numpyro.sample("vector", Normal(0, 1).expand([len(layout)]).to_event(1))
        mean = outputs(layout, vector, examples, examples[:0])
        numpyro.sample("targets", Normal(mean, noise).to_event(1), obs=targets)

    kernel = NUTS(model, max_tree_depth=settings.depth, target_accept_prob=settings.acceptance)
    return MCMC(
        kernel,
        num_warmup=settings.warmup,
        num_samples=settings.draws,
        num_chains=settings.chains,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=True,
    )


def posterior(problem: Problem) -> Answer:
    """Draw from the posterior; return the outputs at the points and their diagnostics."""
    chains = sampler(problem.layout, problem.settings)
    inputs = jnp.asarray(problem.inputs)
    start = None if problem.start is None else {"vector": jnp.asarray(problem.start)}
    chains.run(
        jax.random.PRNGKey(problem.seed),
        inputs,
        jnp.asarray(problem.targets),
        problem.noise,
        init_params=start,
        extra_fields=("diverging", "num_steps"),
    )
    vectors = chains.get_samples(group_by_chain=True)["vector"]
    fields = chains.get_extra_fields(group_by_chain=True)
    found = jax.vmap(jax.vmap(lambda vector: outputs(
        problem.layout, vector, inputs, jnp.asarray(problem.points))))(vectors)  # fmt: skip
    return answer(np.asarray(found[..., len(inputs) :], dtype=np.float64), fields)


def answer(draws: np.ndarray, fields: dict[str, Any]) -> Answer:
    """Moments and diagnostics of outputs with the axes chains, draws, points."""
    half = len(draws) // 2
    return Answer(
        mean=draws.mean((0, 1)),
        sd=draws.std((0, 1)),
        halves=np.stack([part.std((0, 1)) for part in (draws[:half], draws[half:])]),
        r_hat=np.asarray(split_gelman_rubin(draws)),
        sample_size=np.asarray(effective_sample_size(draws)),
        diverging=float(np.mean(fields["diverging"])),
        steps=float(np.mean(fields["num_steps"])),
    )
