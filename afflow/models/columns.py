"""Tables in the units of their columns: real, bounded and whole numbers, and categories."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from math import inf, isfinite, nan
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from afflow._tools.arguments import check_number
from afflow._tools.arrays import to_double
from afflow.bijectors.blockwise import Blockwise
from afflow.bijectors.domains import Exp, Interval
from afflow.core.bijector import Bijector
from afflow.core.table import Table
from afflow.models.dequantization import Dequantized
from afflow.models.flow import Flow

_MOST_LEVELS = 2**13  # up to this size, float32 has room for noise between whole numbers
_MANY = 1e4  # least standard deviation of a column in compiled functions, in rounding errors


@dataclass(frozen=True)
class Column:
    """One column of a table: the range of its values, and how entries become numbers."""

    @property
    def ends(self) -> tuple[float, float]:
        """The open interval of the values; for whole numbers, of value plus noise."""
        return -inf, inf

    @property
    def is_discrete(self) -> bool:
        """Whether the values are whole numbers, which noise makes continuous."""
        return False

    def numbers(self, name: str, entries: Any) -> np.ndarray:
        """Return the entries of a column as float64. Errors call the column `name`."""
        return to_double(name, entries)

    def entries(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers within the column's range as entries of the table."""
        return numbers


@dataclass(frozen=True)
class Real(Column):
    """A real number.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> flow = afflow.made(1, columns=[afflow.Real()], rngs=nnx.Rngs(0))
        >>> flow.log_prob([[0.0]]).shape
        (1,)
    """


@dataclass(frozen=True)
class Above(Column):
    """A real number above a bound. The flow models its logarithm.

    Args:
        low: the bound; values are strictly above it.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> flow = afflow.made(1, columns=[afflow.Above(2.0)], rngs=nnx.Rngs(0))
        >>> flow.log_prob([1.0]).item()
        -inf
    """

    low: float = 0.0

    def __post_init__(self):
        check_number("low", self.low)

    @property
    def ends(self):
        return self.low, inf


@dataclass(frozen=True)
class Between(Column):
    """A real number between two bounds. The flow models its logit.

    Args:
        low: the lower bound; values are strictly above it.
        high: the upper bound; values are strictly below it.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> flow = afflow.made(1, columns=[afflow.Between(0.0, 1.0)], rngs=nnx.Rngs(0))
        >>> flow.log_prob([[0.5], [1.5]])[1].item()
        -inf
    """

    low: float
    high: float

    def __post_init__(self):
        check_number("low", self.low)
        check_number("high", self.high)

    @property
    def ends(self):
        return self.low, self.high


@dataclass(frozen=True)
class Whole(Column):
    """A whole number. Uniform noise fills the gap to the next whole number.

    Args:
        low: the least value, or `None` for no lower bound.
        high: the largest value, or `None` for no upper bound. It needs a `low`.

    Raises:
        ValueError: for a largest value without a least one.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> flow = afflow.made(1, columns=[afflow.Whole(1, 6)], rngs=nnx.Rngs(0))
        >>> bool(flow.log_prob([7]) == -float("inf"))
        True
    """

    low: int | None = None
    high: int | None = None

    def __post_init__(self):
        for name, end in (("low", self.low), ("high", self.high)):
            if end is not None:
                check_number(
                    name, end, lambda end: isfinite(end) and end == int(end), "that is whole"
                )
        if self.low is None and self.high is not None:
            raise ValueError(f"Expected a least value beside the largest, got {self}: give low.")

    @property
    def ends(self):
        return (
            -inf if self.low is None else self.low,
            inf if self.high is None else self.high + 1,
        )

    @property
    def is_discrete(self):
        return True

    def numbers(self, name, entries):
        numbers = to_double(name, entries)
        off = numbers != np.round(numbers)
        if (off & ~np.isnan(numbers)).any():
            raise ValueError(
                f"Expected whole numbers in {name}, got {numbers[off].flat[0]}: take Real(), or "
                f"round them."
            )
        return numbers

    def entries(self, numbers):
        return numbers.astype(np.int64) if np.isfinite(numbers).all() else numbers


@dataclass(frozen=True)
class Categories(Column):
    """One category of a list. Noise fills the gaps between the categories' places in the list.

    Args:
        values: the categories, of any hashable kind. Neighbours in the list are neighbours to the
            flow.

    Raises:
        ValueError: if the list is empty or two categories are equal.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> flow = afflow.made(1, columns=[afflow.Categories(["g", "r"])], rngs=nnx.Rngs(0))
        >>> flow.log_prob([["g"], ["r"]]).shape
        (2,)
    """

    values: tuple[Hashable, ...]

    def __init__(self, values: Sequence[Hashable]):
        if not isinstance(values, Iterable):
            raise ValueError(f"Expected a list of categories, got {values!r}.")
        object.__setattr__(self, "values", tuple(_make_plain(value) for value in values))
        if len(set(self.values)) < len(self.values) or not self.values:
            raise ValueError(f"Expected different categories, got {self.values}.")

    @property
    def ends(self):
        return 0, len(self.values)

    @property
    def is_discrete(self):
        return True

    def numbers(self, name, entries):
        places = {value: float(i) for i, value in enumerate(self.values)}
        entries = np.asarray(entries)
        plain = [_make_plain(entry) for entry in entries.flat]
        unknown = [entry for entry in plain if not (entry in places or _is_missing(entry))]
        if unknown:
            raise ValueError(
                f"Expected categories {list(self.values)} in {name}, got {unknown[0]!r}."
            )
        return np.array([places.get(entry, nan) for entry in plain]).reshape(entries.shape)

    def entries(self, numbers):
        values = np.empty(len(self.values), object)
        values[:] = self.values
        if len({type(value) for value in self.values}) == 1 and not isinstance(values[0], tuple):
            values = np.array(self.values)
        return values[numbers.astype(int)]


Kinds = Sequence[Column] | Mapping[int, Column] | Mapping[str, Column]


@dataclass(frozen=True)
class Layout:
    """The columns of a table: their kinds, names and origins.

    Args:
        kinds: a `Column` for each coordinate.
        names: the names of the columns, or `None`.
        origins: one number per column, subtracted in float64 before the table is rounded to
            float32.
        is_resolved: whether JAX's default float type resolves the columns with their origins added.
    """

    kinds: tuple[Column, ...]
    names: tuple[str, ...] | None
    origins: tuple[float, ...]
    is_resolved: bool = True

    @property
    def is_discrete(self) -> tuple[bool, ...]:
        """Whether each column holds whole numbers or categories."""
        return tuple(kind.is_discrete for kind in self.kinds)

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The ranges of the columns minus their origins: lower and upper ends, each `(D,)`."""
        low, high = np.array([kind.ends for kind in self.kinds]).T
        return low - np.array(self.origins), high - np.array(self.origins)

    def numbers(self, table: Any) -> np.ndarray:
        """Return a table as numbers `(..., D)` in float64.

        Raises:
            ValueError: for a missing column, a wrong number of columns, or entries that a column
                cannot hold.
        """
        if self.names is not None and _has_names(table):
            missing = [name for name in self.names if name not in table]
            if missing:
                raise ValueError(
                    f"Expected columns {list(self.names)}, got a table without {missing}."
                )
            columns = [np.asarray(table[name]) for name in self.names]
        else:
            rows = np.asarray(table)
            if rows.shape[-1:] != (len(self.kinds),):
                raise ValueError(f"Expected x.shape (..., {len(self.kinds)}), got {rows.shape}.")
            columns = np.moveaxis(rows, -1, 0)
        named = zip(self.kinds, self._labels(), columns, strict=True)
        return np.stack([kind.numbers(name, column) for kind, name, column in named], -1)

    def encode(self, table: Any) -> Any:
        """Return a table as numbers `(..., D)` minus the origins, in JAX's default float type.

        Values inside an open range stay inside after rounding.
        """
        if isinstance(table, Tracer):
            x = jnp.asarray(table, float)
            return x - self.origin(x)
        exact = self.numbers(table) - np.array(self.origins)
        x = exact.astype(jax.dtypes.canonicalize_dtype(float))
        low, high = self.ends
        inside = (exact > low) & (exact < high) & ~np.array(self.is_discrete)
        info = np.finfo(x.dtype)
        least = np.where(low == 0, info.tiny, np.nextafter(low.astype(x.dtype), np.inf))
        most = np.nextafter(high.astype(x.dtype), -np.inf)
        return np.where(inside, np.clip(x, least, most), x).astype(x.dtype)

    def decode(self, x: jax.Array) -> Any:
        """Return a table from numbers `(..., D)` with the origins subtracted."""
        if isinstance(x, Tracer):
            return x + self.origin(x)
        numbers = np.asarray(x, np.float64) + np.array(self.origins)
        pairs = zip(self.kinds, np.moveaxis(numbers, -1, 0), strict=True)
        columns = [kind.entries(_keep_within(kind, column)) for kind, column in pairs]
        if self.names is None:
            plain = all(column.dtype.kind in "iuf" for column in columns)
            return np.stack([c if plain else c.astype(object) for c in columns], -1)
        table = dict(zip(self.names, columns, strict=True))
        return _make_frame(table) if numbers.ndim == 2 else table

    def onto(self) -> Blockwise:
        """Return the map from the real line onto the ranges of the columns minus their origins."""
        low, high = self.ends
        above = np.flatnonzero(np.isfinite(low) & np.isinf(high))
        between = np.flatnonzero(np.isfinite(high))
        maps: list[Bijector] = [Exp(len(above))] if len(above) else []
        maps += [Interval(low[between], high[between])] if len(between) else []
        return Blockwise(
            len(low), maps, [block.tolist() for block in (above, between) if len(block)]
        )

    def on_the_line(self, table: Any) -> np.ndarray:
        """Return the rows of a table on the real line `(N, D)`, with noise on whole numbers."""
        x = self.encode(table)
        noise = np.random.default_rng(0).uniform(0.01, 0.99, x.shape)
        x = np.where(self.is_discrete, x + noise, x).astype(x.dtype)
        return np.asarray(jax.jit(jax.vmap(self.onto().inverse))(x), np.float64)

    def origin(self, like: Any) -> jax.Array:
        """Return the origins in the shape and float type of the array `like`.

        Raises:
            ValueError: if float32 does not resolve the columns with their origins added.
        """
        if not self.is_resolved and like.dtype == jnp.float32:
            raise ValueError(
                "Expected columns that float32 resolves inside of compiled functions: call the "
                "methods of the Flow outside of them, or set jax_enable_x64."
            )
        return jnp.broadcast_to(jnp.array(self.origins, like.dtype), like.shape)

    def _labels(self) -> list[str]:
        return [f"column {i}" for i in self.names or range(len(self.kinds))]

    def check(self, numbers: np.ndarray) -> None:
        """Raise `ValueError` for rows outside the ranges, or integers far from their origin."""
        named = zip(self.kinds, self._labels(), self.origins, numbers.T, strict=True)
        for kind, name, origin, column in named:
            low, high = kind.ends
            if not np.isfinite(column).all():
                raise ValueError(
                    f"Expected finite numbers in {name}, got {column[~np.isfinite(column)][0]} in "
                    f"row {np.flatnonzero(~np.isfinite(column))[0]}: drop the row, or impute it."
                )
            outside = ~((column >= low if kind.is_discrete else column > low) & (column < high))
            if outside.any():
                raise ValueError(
                    f"Expected {name} inside of {kind}, got {column[outside][0]} in row "
                    f"{np.flatnonzero(outside)[0]}: widen the bounds, or drop the row."
                )
            if kind.is_discrete and np.abs(column - origin).max() > _MOST_LEVELS:
                raise ValueError(
                    f"Expected whole numbers within {_MOST_LEVELS} of {origin} in {name}, got "
                    f"{column.min()} to {column.max()}: take Real(), whose gaps do not matter then."
                )


def make_layout(dim: int, kinds: Kinds, data: Any = None) -> Layout:
    """Return the layout of a table of `dim` columns.

    A column that `kinds` does not mention is `Real()`, unless `data` is a data frame or a
    dictionary. Then the entries of the column decide. Floats are `Real()`, and integers are
    `Whole()` without bounds. Text and booleans are `Categories` of the values that occur, sorted. A
    categorical column of pandas or an enumeration of polars keeps the order of its categories.

    Args:
        dim: the number of columns.
        kinds: a `Column` for each position, or a mapping from some positions or names to columns.
        data: a table. It gives the names, the kinds of columns that are not mentioned, and the
            origins of unbounded columns, which are their medians.

    Raises:
        ValueError: for a number of columns other than `dim`, unknown names, dates, or values out of
            range.
    """
    chosen, names = find_columns(dim, kinds, data)
    if len(chosen) != dim or not all(isinstance(kind, Column) for kind in chosen):
        raise ValueError(f"Expected {dim} columns, Real() or Above(0) say, got {kinds!r}.")
    bare = Layout(tuple(chosen), None if names is None else tuple(names), (0.0,) * dim)
    numbers = None if data is None else bare.numbers(data).reshape(-1, dim)
    origins = tuple(map(_choose_origin, chosen, [None] * dim if numbers is None else numbers.T))
    if numbers is None:
        return replace(bare, origins=origins)
    is_resolved = all(map(_is_resolved, chosen, origins, numbers.T))
    found = replace(bare, origins=origins, is_resolved=is_resolved)
    found.check(numbers)
    return found


class Columns(Bijector, Table):
    r"""A bijector onto the rows of a table, in the units of the columns and by their names.

    $$y = o + f(x),$$

    with $f$ the bijector from noise to rows minus the origins $o$. The origins are subtracted in
    float64, before the rows are rounded to float32. Times of 10^9 seconds are thus resolved to
    milliseconds.

    `Columns` is the outermost bijector of a `Flow`. Outside of compiled functions the methods of
    that `Flow` take tables: arrays `(..., D)`, data frames, or dictionaries of columns. If the
    columns have names, they return data frames for samples `(N, D)`, and dictionaries for other
    shapes or without pandas. Otherwise they return arrays: of numbers, or of objects if a column
    holds other categories than numbers. Compiled functions take and return arrays, with each
    category as its place in the list. They refuse columns that JAX's float type does not resolve.

    The log-probability of whole numbers or categories is a lower bound in expectation over the
    noise,

    $$\log P(k) \ge \mathbb{E}_u \log \frac1S \sum_{s \le S} p(k + u_s), \qquad
    u_s \sim U(0, 1)^D.$$

    Training takes one draw of the noise, `log_prob` takes 16. Theis et al. 2016, arXiv:1511.01844;
    Burda et al. 2016, arXiv:1509.00519.

    Args:
        bijector: the map $f$.
        layout: the columns.

    Raises:
        ValueError: if the layout has another number of columns than the bijector has coordinates.

    Example:
        >>> import afflow, numpy as np
        >>> from flax import nnx
        >>> rng = np.random.default_rng(0)
        >>> rows = {"time": 1.1e9 + rng.random(90), "shots": rng.poisson(3, 90)}
        >>> columns = {"time": afflow.Real(), "shots": afflow.Whole(low=0)}
        >>> flow = afflow.maf(2, data=rows, columns=columns, rngs=nnx.Rngs(0))
        >>> flow.log_prob(rows).shape
        (90,)
    """

    def __init__(self, bijector: Bijector, layout: Layout):
        self.bijector = bijector
        self.layout = layout
        self.event_shape, self.context_shape = bijector.event_shape, bijector.context_shape
        if self.event_shape != (len(layout.kinds),):
            raise ValueError(
                f"Expected as many columns as coordinates {self.event_shape}, got {layout.kinds}."
            )

    def walk(self, x, context, visit, *, forward=False):
        origin = self.layout.origin(x)
        if forward:
            return self.bijector.walk(x, context, visit, forward=True) + origin
        return self.bijector.walk(x - origin, context, visit)

    def forward_and_log_det(self, x, context=None):
        y, log_det = self.bijector.forward_and_log_det(x, context)
        return y + self.layout.origin(y), log_det

    def inverse_and_log_det(self, y, context=None):
        return self.bijector.inverse_and_log_det(y - self.layout.origin(y), context)

    def enter(self, flow, num_draws=16):
        inner = Flow(flow.base, self.bijector)
        is_discrete = self.layout.is_discrete
        return Dequantized(inner, is_discrete, num_draws) if any(is_discrete) else inner

    def leave(self, model):
        inner = model.flow if isinstance(model, Dequantized) else model
        return Flow(inner.base, Columns(inner.bijector, self.layout))

    def encode(self, table):
        return self.layout.encode(table)

    def decode(self, x):
        return self.layout.decode(x)


def find_columns(dim: int, kinds: Kinds, data: Any) -> tuple[list[Column], list[str] | None]:
    """Return a `Column` for each coordinate, and the names or `None`; see `make_layout`."""
    if isinstance(kinds, Mapping):
        names = _find_names(dim, kinds, data)
        keys = range(dim) if names is None else names
        unknown = [k for k in kinds if k not in set(keys) | set(range(dim))]
        if unknown:
            raise ValueError(f"Expected columns among {list(keys)}, got {unknown}.")
        by_key: Any = keys
        chosen = {(k if k in keys else by_key[k]): kind for k, kind in kinds.items()}
        return [chosen.get(k) or _infer(data, k, names) for k in keys], names
    return list(kinds), _find_names(dim, {}, data)


def _find_names(dim: int, kinds: Mapping, data: Any) -> list[str] | None:
    """Return the names of the columns of `data`, or else the names in `kinds`, or `None`."""
    names = _get_names(data) if _has_names(data) else [k for k in kinds if isinstance(k, str)]
    if names and len(names) != dim:
        raise ValueError(f"Expected {dim} columns, got {names}.")
    return names or None


def _infer(data: Any, key: Any, names: list[str] | None) -> Column:
    """Return the `Column` that fits the entries of column `key` of `data`."""
    if names is None or not _has_names(data):
        return Real()
    categories = getattr(getattr(data[key], "dtype", None), "categories", None)
    if np.iterable(categories):  # categories of pandas and enumerations of polars are in order
        return Categories(list(categories))
    column = np.asarray(data[key])
    if column.dtype.kind in "mM":
        raise ValueError(
            f"Expected numbers or categories in column {key}, got dates or times: "
            f"convert them to seconds, (x - x.min()) / np.timedelta64(1, 's') say."
        )
    if column.dtype.kind in "iu":
        return Whole()
    is_number = all(isinstance(e, float | np.floating) for e in column.flat)
    if column.dtype.kind == "f" or (column.dtype == object and is_number):
        return Real()
    values = {_make_plain(entry) for entry in column.flat}
    return Categories(sorted((v for v in values if not _is_missing(v)), key=str))


def _has_names(table: Any) -> bool:
    return isinstance(table, Mapping) or hasattr(table, "columns")


def _get_names(table: Any) -> list[Any]:
    """Return the names of the columns of a dictionary, or of a data frame of any library."""
    return list(table if isinstance(table, Mapping) else table.columns)


def _choose_origin(kind: Column, numbers: np.ndarray | None) -> float:
    """Return the lower end of the range if it is finite, else the median of `numbers`, or 0."""
    low, _ = kind.ends
    if isfinite(low):
        return float(low)
    middle = 0.0 if numbers is None else float(np.median(numbers))
    return float(np.round(middle)) if kind.is_discrete else middle


def _is_resolved(kind: Column, origin: float, numbers: np.ndarray) -> bool:
    """Return whether JAX's default float type resolves a column with its origin added."""
    eps = float(jnp.finfo(jax.dtypes.canonicalize_dtype(float)).eps)
    if origin == 0:
        return True
    if kind.is_discrete:
        return bool(np.abs(numbers).max() < 1 / eps)
    return bool(numbers.std() > _MANY * eps * abs(origin))


def _keep_within(kind: Column, numbers: np.ndarray) -> np.ndarray:
    """Clip `numbers` to the range of a column, which rounding can leave."""
    low, high = kind.ends
    if kind.is_discrete:
        return np.clip(numbers, low, high - 1)
    return np.clip(numbers, np.nextafter(low, inf), np.nextafter(high, -inf))


def _make_frame(table: dict[str, np.ndarray]) -> Any:
    """Return a data frame if pandas is installed, else the dictionary `table` unchanged."""
    try:
        return import_module("pandas").DataFrame(table)
    except ImportError:
        return table


def _make_plain(value: Any) -> Any:
    """Return a NumPy scalar as the equal Python object, and any other value unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def _is_missing(value: Any) -> bool:
    """Return whether an entry of a table stands for no value: `None`, NaN, or NA of pandas."""
    return not isinstance(value, str) and str(value) in {"None", "nan", "NaT", "<NA>"}
