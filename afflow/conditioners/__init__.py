"""Networks from `x[:t]` and a context to the parameters of coordinate `t`."""

from afflow.conditioners.conditioner import Conditioner
from afflow.conditioners.made import MADE

__all__ = ["MADE", "Conditioner"]
