"""Trained flows of other libraries as flows of afflow, and the parts that only they need."""
