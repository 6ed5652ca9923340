"""The estimator of scikit-learn: the fit by hand, the checks of scikit-learn, frames, processes."""

import pickle
import sys

import jax
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import afflow
from afflow._tools.names import named
from afflow.adapters import FlowDensity

RNG = np.random.default_rng(0)
X = RNG.normal(2, [1, 3], size=(40, 2))
CONTEXT = X[:, :1] + RNG.normal(size=(40, 1))
TINY = {"hidden": (2,)}
TRAINING = {"max_epochs": 1, "batch_size": 8, "random_state": 3}


def linear(dim, *, data, rngs):
    """Return a normal with a trained covariance in standardised units, which compiles fast."""
    units = afflow.Standardize.from_data(data)
    return afflow.Flow(afflow.Normal(dim), afflow.Chain([afflow.bijectors.Triangular(dim), units]))


def tiny(flow=linear, **options):
    return FlowDensity(flow, **TRAINING | options)


@pytest.fixture(scope="module")
def fitted():
    return tiny().fit(X)


# scikit-learn's decorator puts the address of `linear` into names, which differ between processes.
CHECKS = [check for _, check in estimator_checks_generator(tiny())]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.func.__name__)
def test_checks_of_scikit_learn(check):
    check(tiny())


def test_equals_fit_by_hand():
    fitted = tiny(afflow.made, options=TINY).fit(X)
    start, order = jax.random.split(jax.random.key(3))
    flow = afflow.made(2, data=X, rngs=nnx.Rngs(start), **TINY)
    flow, history = afflow.fit(
        flow, X, key=order, max_epochs=1, batch_size=8, validation=0.1, progress=False
    )
    log_prob = np.asarray(flow.log_prob(X))
    assert_array_equal(fitted.score_samples(X), log_prob)
    assert fitted.score(X) == log_prob.mean()
    assert fitted.history_ == history
    assert_array_equal(fitted.sample(5, random_state=1), flow.sample(jax.random.key(1), 5))


def test_equals_fit_by_hand_with_contexts():
    fitted = tiny("made", options=TINY).fit(X, context=CONTEXT)
    start, order = jax.random.split(jax.random.key(3))
    data = X, CONTEXT
    flow = afflow.made(2, context_dim=1, data=data, rngs=nnx.Rngs(start), **TINY)
    flow, _ = afflow.fit(
        flow, X, context=CONTEXT, key=order, max_epochs=1, batch_size=8, progress=False
    )
    log_prob = np.asarray(flow.log_prob(X, CONTEXT))
    assert_array_equal(fitted.score_samples(X, CONTEXT), log_prob)
    assert fitted.score(X, context=CONTEXT) == log_prob.mean()
    draws = fitted.sample(40, random_state=1, context=CONTEXT)
    assert_array_equal(draws, flow.sample(jax.random.key(1), (), CONTEXT))
    one = fitted.sample(3, random_state=1, context=CONTEXT[:1])
    assert_array_equal(one, flow.sample(jax.random.key(1), (), np.repeat(CONTEXT[:1], 3, 0)))


def test_training_options_reach_fit():
    given = {"max_epochs": 7, "patience": 0, "learning_rate": 1e-30, "validation": 0.5}
    fitted = tiny(**given).fit(X)
    assert len(fitted.history_.validation) < 7
    assert len(tiny(**given | {"patience": 7}).fit(X).history_.validation) == 7
    assert fitted.history_.validation[0] == pytest.approx(fitted.history_.validation[-1])
    assert not tiny(**given | {"validation": 0.0}).fit(X).history_.validation


def test_results_depend_on_random_state(fitted):
    again, other = tiny().fit(X), tiny(random_state=4).fit(X)
    assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    assert (other.score_samples(X) != fitted.score_samples(X)).any()
    assert_array_equal(fitted.sample(4, 0), fitted.sample(4, 0))
    assert (fitted.sample(4) != fitted.sample(4)).all()
    first, second = (tiny(random_state=np.random.RandomState(s)).fit(X) for s in (0, 0))
    assert_array_equal(first.score_samples(X), second.score_samples(X))


def test_results_may_be_written_to(fitted):
    fitted.score_samples(X)[0] = 0
    fitted.sample(2)[0] = 0


def test_clone_keeps_the_parameters_only(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "flow_")
    assert copy.set_params(max_epochs=2).max_epochs == 2


def test_pipeline_standardises():
    pipeline = make_pipeline(StandardScaler(), tiny()).fit(X)
    scaled = StandardScaler().fit_transform(X)
    assert_array_equal(pipeline.score_samples(X), tiny().fit(scaled).score_samples(scaled))
    pipeline = make_pipeline(StandardScaler(), tiny("made", options=TINY))
    pipeline.fit(X, flowdensity__context=CONTEXT)
    assert pipeline[-1].flow_.context_shape == (1,)


def wide(dim, *, data, rngs):
    """Return the flow of `linear` in units 100 times as large as the data."""
    return linear(dim, data=100 * data, rngs=rngs)


def test_grid_search_prefers_the_factory_with_the_better_density():
    options = {"cv": 2, "error_score": "raise"}
    search = GridSearchCV(tiny(), {"flow": [wide, linear]}, **options).fit(X)
    assert search.best_params_ == {"flow": linear}
    assert_array_equal(search.best_estimator_.score_samples(X), tiny().fit(X).score_samples(X))


def test_contexts_are_routed_through_a_grid_search():
    with config_context(enable_metadata_routing=True):
        estimator = tiny(afflow.made, options=TINY)
        estimator.set_fit_request(context=True).set_score_request(context=True)
        search = GridSearchCV(estimator, {"max_epochs": [1]}, cv=2, error_score="raise")
        search.fit(X, context=CONTEXT)
    assert np.isfinite(search.best_score_)


def test_frames_keep_names(fitted):
    frame = pd.DataFrame(X, columns=["a", "b"])
    named = tiny().fit(frame)
    assert named.feature_names_in_.tolist() == ["a", "b"]
    assert_array_equal(named.score_samples(frame), fitted.score_samples(X))
    draws = named.sample(3, random_state=0)
    assert draws.columns.tolist() == ["a", "b"]
    assert_array_equal(draws.to_numpy(), fitted.sample(3, random_state=0))
    with pytest.raises(ValueError, match="feature names"):
        named.score_samples(frame[["b", "a"]])


def test_frames_with_categories_are_tables():
    frame = pd.DataFrame({"size": X[:, 0], "kind": np.where(X[:, 1] > 2, "big", "small")})
    fitted = tiny(afflow.made, options=TINY).fit(frame)
    assert_array_equal(fitted.score_samples(frame), fitted.flow_.log_prob(frame))
    draws = fitted.sample(20, random_state=0)
    assert draws.columns.tolist() == ["size", "kind"]
    assert set(draws["kind"]) <= {"big", "small"}
    with pytest.raises(ValueError, match="Expected categories"):
        fitted.score_samples(frame.assign(kind="huge"))
    with pytest.raises(ValueError, match="feature names"):
        fitted.score_samples(frame[["kind", "size"]])


def test_columns_are_options():
    rows = np.stack([X[:, 0].astype(object), np.where(X[:, 1] > 2, "big", "small")], 1)
    columns = [afflow.Above(-100.0), afflow.Categories(["small", "big"])]
    fitted = tiny(afflow.made, options=TINY | {"columns": columns}).fit(rows)
    below = np.array([[-101.0, "big"]], object)
    assert fitted.score_samples(below) == -np.inf
    assert set(fitted.sample(20, random_state=0)[:, 1]) == {"small", "big"}


def test_pickles(fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(copy.score_samples(X), fitted.score_samples(X))
    assert_array_equal(copy.sample(2, 0), fitted.sample(2, 0))


def test_works_in_processes_of_joblib(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    get_reusable_executor().shutdown()  # joblib keeps processes of earlier tests, without these
    estimator = tiny(afflow.made, options=TINY)
    (fitted,) = Parallel(n_jobs=2)(delayed(estimator.fit)(x) for x in (X,))
    assert_allclose(fitted.score_samples(X), estimator.fit(X).score_samples(X), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow": 3}, "Expected a function as flow"),
        ({"flow": "mfa"}, "Expected a factory or its name in afflow.zoo, got 'mfa'"),
        ({"flow": "made", "options": {"widths": 3}}, "widths"),
        ({"max_epochs": 0}, "Expected a whole number max_epochs"),
        ({"validation": 2.0}, "Expected a number validation"),
    ],
)
def test_bad_parameters_are_errors_of_fit(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        tiny(**change).fit(X)


def test_bad_data_are_errors(fitted):
    with pytest.raises(NotFittedError):
        tiny().sample()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        tiny().fit(X, context=CONTEXT[:3])
    with pytest.raises(ValueError, match="context"):
        fitted.score_samples(X, CONTEXT)
    with pytest.raises(ValueError, match="Expected a whole number n_samples"):
        fitted.sample(0)


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"FlowDensity needs.*pip install 'afflow\[sklearn\]'"):
        afflow.adapters.FlowDensity  # noqa: B018
    with pytest.raises(AttributeError, match="'FlowDensities'"):
        afflow.adapters.FlowDensities  # noqa: B018


def test_files_of_models_do_not_name_adapters():
    """Check that `load`, which knows the names of all models, imports no adapted library."""
    with pytest.raises(ValueError, match="Expected to find afflow:FlowDensity"):
        named("afflow:FlowDensity")
