"""An estimator of scikit-learn: a factory of flows together with the options of its training."""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import jax
import numpy as np
from flax import nnx
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from afflow import zoo
from afflow._tools.arguments import check_callable
from afflow._tools.extras import import_extra
from afflow._tools.shapes import check_size
from afflow.core.table import get_table
from afflow.training.fitting import fit
from afflow.zoo.autoregressive_flows import maf

_SEEDS = 2**31 - 1
_LEAST = 2  # rows: one to train on, and one to hold out


class FlowDensity(DensityMixin, BaseEstimator):
    r"""A density estimator of scikit-learn that builds a flow and fits it by `afflow.fit`.

    `fit` maximises the mean log-likelihood of the rows, and `score` returns it for new rows:

    $$\frac1N \sum_{i=1}^N \log q_\theta(x_i \mid h_i).$$

    The estimator works in a `Pipeline`, in `GridSearchCV` and in processes of joblib. It pickles if
    its factory and options do; functions must therefore be defined at the top of a module.

    A data frame of floats is the same as an array with names. A data frame with other columns is a
    table: the flow then infers the kind of each column as `columns={}` of a factory does. With
    `options={"columns": ...}` any data are a table.

    Needs the library `scikit-learn` (extra `sklearn`).

    Args:
        flow: a factory, called as `flow(D, data=..., rngs=..., **options)`, or the name of a
            factory of `afflow.zoo`. With contexts it also gets `context_dim`.
        options: further arguments of the factory, such as `{"num_layers": 2}`.
        max_epochs: the number of epochs, unless training stops early.
        batch_size: the number of rows in a minibatch; see `afflow.fit` for the default.
        learning_rate: the initial rate of the optimizer; see `afflow.fit` for the default.
        patience: the number of epochs without a better validation loss before training stops.
        validation: the fraction of the rows to hold out for the choice of the best epoch. With 0
            training does not stop early.
        random_state: the seed of the initial weights and of the order of the minibatches: an
            integer, a NumPy `RandomState`, or `None` for another seed at each call of `fit`.
        progress: show a progress bar, if `tqdm` is installed.

    Attributes:
        flow_: the fitted flow.
        history_: the `History` of losses in nats.
        n_features_in_: the number of columns `D`.
        feature_names_in_: the names of the columns, after a fit on a data frame.

    Raises:
        ImportError: if `scikit-learn` is missing. The import of this class raises it.

    Example:
        >>> import afflow, numpy as np
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> x = np.random.default_rng(0).normal(3, 1, size=(200, 2))
        >>> estimator = afflow.adapters.FlowDensity(
        ...     afflow.maf, options={"num_layers": 1, "hidden": (8,)}, max_epochs=2, random_state=0
        ... )
        >>> pipeline = make_pipeline(StandardScaler(), estimator).fit(x)
        >>> pipeline.score_samples(x).shape
        (200,)
    """

    n_features_in_: int  # set by `validate_data`

    def __init__(
        self,
        flow: Callable[..., Any] | str = maf,
        *,
        options: Mapping[str, Any] | None = None,
        max_epochs: int = 100,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        patience: int = 20,
        validation: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ):
        self.flow = flow
        self.options = options
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.validation = validation
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None, context: Any = None) -> "FlowDensity":
        """Build a flow for the columns of `X`, and fit it.

        The weights come from `nnx.Rngs(k[0])` and the minibatches from `k[1]`, where `k` is
        `jax.random.split(jax.random.key(random_state))`.

        Args:
            X: rows `(N, D)`, an array or a data frame.
            y: ignored.
            context: contexts `(N, C)` for a conditional flow.

        Returns:
            The estimator.

        Raises:
            ValueError: for fewer than two rows, values that are not finite, lengths that disagree,
                or arguments out of range.
        """
        factory = _find_factory(self.flow)
        as_table = "columns" in (self.options or {}) or _has_kinds(X)
        x = self._check_rows(X, as_table=as_table, reset=True)
        h = _check_contexts(x, context)
        start, order = jax.random.split(jax.random.key(_draw_seed(self.random_state)))
        self.flow_, self.history_ = fit(
            self._build(factory, x, h, nnx.Rngs(start), as_table=as_table),
            x,
            key=order,
            context=h,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
            validation=self.validation,
            progress=self.progress,
        )
        return self

    def score_samples(self, X: Any, context: Any = None) -> np.ndarray:
        """Return the log-density of each row in nats.

        Args:
            X: rows `(N, D)`.
            context: contexts `(N, C)` after a fit with contexts.

        Returns:
            Log-densities `(N,)` in float64.

        Raises:
            NotFittedError: before `fit`.
            ValueError: for other columns than in `fit`, or a context that is missing or not wanted.
        """
        check_is_fitted(self)
        x = self._check_rows(X, as_table=get_table(self.flow_) is not None)
        return np.array(self.flow_.log_prob(x, _check_contexts(x, context)), np.float64)

    def score(self, X: Any, y: Any = None, context: Any = None) -> float:
        """Return the mean log-density of the rows in nats.

        Args:
            X: rows `(N, D)`.
            y: ignored.
            context: contexts `(N, C)` after a fit with contexts.

        Raises:
            NotFittedError: before `fit`.
            ValueError: for other columns than in `fit`, or a context that is missing or not wanted.
        """
        return float(self.score_samples(X, context).mean())

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
        context: Any = None,
    ) -> Any:
        """Draw samples of the fitted flow.

        Args:
            n_samples: the number of samples `S`.
            random_state: an integer, a NumPy `RandomState`, or `None` for other samples at each
                call.
            context: contexts `(S, C)`, one for each sample, or one context `(1, C)` for all.

        Returns:
            Samples `(S, D)`: a data frame after a fit on a data frame, else an array.

        Raises:
            NotFittedError: before `fit`.
            ValueError: for a number of samples below 1, or a context that is missing or not wanted.
        """
        check_is_fitted(self)
        check_size("n_samples", n_samples)
        key = jax.random.key(_draw_seed(random_state))
        if context is None:
            return self._name_columns(self.flow_.sample(key, n_samples))
        h = check_array(context, input_name="context")
        contexts = np.broadcast_to(h, (n_samples, h.shape[1]))
        return self._name_columns(self.flow_.sample(key, (), contexts))

    def _check_rows(self, X: Any, *, as_table: bool, reset: bool = False) -> Any:
        """Return rows as float64, or a table unchanged, after the checks of scikit-learn."""
        if as_table:
            validate_data(self, X, skip_check_array=True, reset=reset)
            return X
        least = _LEAST if reset else 1
        as_rows: dict[str, Any] = {"dtype": np.float64, "order": "C"}  # frames are stored by column
        return validate_data(self, X, reset=reset, ensure_min_samples=least, **as_rows)

    def _build(self, factory: Any, x: Any, context: Any, rngs: nnx.Rngs, *, as_table: bool) -> Any:
        """Return the flow to start from."""
        options: dict[str, Any] = {"columns": {}} if as_table else {}
        if context is not None:
            options["context_dim"] = context.shape[1]
        data = x if context is None else (x, context)
        options |= self.options or {}
        return factory(self.n_features_in_, data=data, rngs=rngs, **options)

    def _name_columns(self, samples: Any) -> Any:
        """Return samples as a data frame if the fit was on a data frame."""
        names = getattr(self, "feature_names_in_", None)
        if get_table(self.flow_) is not None:
            return samples
        if names is None:
            return np.array(samples)
        pandas = import_extra("pandas", "sklearn", "has the data frames of samples")
        return pandas.DataFrame(np.array(samples), columns=names)


def _find_factory(flow: Any) -> Callable[..., Any]:
    """Return a factory, or the factory of a name in `afflow.zoo`.

    Raises:
        ValueError: for an unknown name, or neither a name nor a function.
    """
    if not isinstance(flow, str):
        check_callable("flow", flow, "afflow.maf")
        return flow
    if flow not in zoo.__all__:
        raise ValueError(f"Expected a factory or its name in afflow.zoo, got {flow!r}.")
    return getattr(zoo, flow)


def _has_kinds(data: Any) -> bool:
    """Return whether `data` is a data frame with a column that does not hold floats."""
    columns = getattr(data, "columns", ())
    return any(np.asarray(data[name]).dtype.kind != "f" for name in columns)


def _check_contexts(x: Any, context: Any) -> Any:
    """Return contexts `(N, C)` or `None`. Raise `ValueError` unless there is one for each row."""
    if context is None:
        return None
    h = check_array(context, input_name="context")
    check_consistent_length(x, h)
    return h


def _draw_seed(random_state: Any) -> int:
    """Return an integer unchanged, or the next seed of a random state."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(_SEEDS))
