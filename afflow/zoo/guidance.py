"""Changes of a trained flow that trade variety of its samples for quality."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from afflow._tools.arguments import check_instance, check_positive
from afflow._tools.modules import copy_module
from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.compose import Chain, Repeat
from afflow.bijectors.elementwise import Standardize
from afflow.bijectors.embedding import Embedded
from afflow.conditioners.guided import Guided
from afflow.core.bijector import Bijector
from afflow.core.conditioner import Conditioner
from afflow.models.columns import Columns
from afflow.models.flow import Flow

Model = TypeVar("Model", bound=nnx.Module)


def guide(
    model: Model,
    weight: float,
    null_context: ArrayLike | None = None,
    *,
    temperature: float = 1.0,
    grows: bool = True,
) -> Model:
    """Return the model with each autoregressive conditioner `Guided`.

    The samples of a class look more typical of it as the weight grows, and less varied. The guided
    model is a flow with an exact density. Conditioners without a context stay as they are, unless
    there is a temperature.

    Zhai et al. 2024, arXiv:2412.06329, section 2.6.

    Args:
        model: a flow or a bijector, or a model with flows in it. It is not changed.
        weight: how far the parameters move away from the parameters for no context.
        null_context: the context that stands for no context; zeros by default. Train on it now and
            then: `NoisyFlow` does.
        temperature: of the attention of transformers, in the prediction to move away from.
        grows: whether the weight grows along the tokens, from zero.

    Raises:
        ValueError: if the model has no conditioner that can be guided, and as `Guided` does.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"num_blocks": 2, "num_layers": 1, "width": 8, "num_heads": 2}
        >>> flow = afflow.zoo.tarflow((4, 4), 2, context_dim=3, **sizes, rngs=nnx.Rngs(0))
        >>> guided = afflow.zoo.guide(flow, weight=2.0)
        >>> guided.sample(jax.random.key(0), 5, jax.nn.one_hot(1, 3)).shape
        (5, 4, 4)
    """
    check_instance("model", model, nnx.Module)
    options: dict[str, Any] = {"temperature": temperature, "grows": grows}

    def change(conditioner: Conditioner) -> Conditioner:
        if conditioner.context_shape is None and temperature == 1:
            return conditioner
        return Guided(conditioner, weight, null_context, **options)

    changed = copy_module(model)
    _change_conditioners(changed, change)
    if not any(isinstance(part, Guided) for _, part in nnx.iter_modules(changed)):
        raise ValueError("Expected a model with a conditioner that takes a context, got none.")
    return changed


def cool(flow: Flow, temperature: float) -> Flow:
    """Return the flow with its noise multiplied by `temperature`.

    Below 1, samples come from where the noise is most probable.

    Args:
        flow: the flow, which is not changed.
        temperature: the factor of the noise.

    Raises:
        ValueError: if `temperature <= 0`.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.zoo.cool(afflow.Flow(afflow.Normal(1), afflow.Reverse(1)), 0.5)
        >>> 0.45 < flow.sample(jax.random.key(0), 1000).std().item() < 0.55
        True
    """
    check_instance("flow", flow, Flow)
    check_positive(temperature=temperature)
    shape = flow.event_shape
    scale = Standardize(jnp.zeros(shape), jnp.full(shape, temperature))
    return Flow(flow.base, _precede(flow.bijector, scale))


def _precede(bijector: Bijector, first: Bijector) -> Bijector:
    """Return the chain of two bijectors; `Columns` and `Embedded` stay outermost."""
    if isinstance(bijector, (Columns, Embedded)):
        return copy_module(bijector, bijector=_precede(bijector.bijector, first))
    return Chain([first, bijector])


def _change_conditioners(module: Any, change: Callable[[Conditioner], Conditioner]) -> Any:
    """Replace each conditioner of the autoregressive layers in `module`, in place.

    The arrays of the layers of a `Repeat` are stacked, and so are those of the new conditioners.
    """
    if isinstance(module, MaskedAutoregressive):
        module.conditioner = change(module.conditioner)
    elif isinstance(module, Repeat):
        module.layers = jax.vmap(lambda layer: _change_conditioners(layer, change))(module.layers)
    else:
        for _, child in nnx.iter_children(module):
            _change_conditioners(child, change)
    return module
