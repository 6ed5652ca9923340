"""The abstract parts: bijector, conditioner, conditional, distribution; and what they share."""
