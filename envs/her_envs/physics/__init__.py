"""Ways to advance a simulation, behind the `her_envs.physics.base.Physics` protocol."""
