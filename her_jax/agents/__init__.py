"""Off-policy algorithms behind the `her_jax.types.Agent` protocol."""
