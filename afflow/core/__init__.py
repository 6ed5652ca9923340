"""The abstract classes: bijector, conditioner, conditional, distribution."""
