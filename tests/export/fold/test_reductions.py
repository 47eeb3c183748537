"""Reductions as comparisons: the same values as PyTorch's own."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.export.fold.reductions import first_maximum, kth_smallest, row_squares

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40))


@settings(deadline=None)
@given(shapes, st.integers(0, 1000), st.booleans())
def test_first_maximum_is_argmax(shape, seed, ties):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x = x.round() if ties else x
    # numpy's argmax promises the first of equal values.
    assert first_maximum(x).tolist() == x.numpy().argmax(2).tolist()


def test_a_row_of_nan_gives_an_index_that_exists():
    assert first_maximum(torch.full((1, 1, 5), torch.nan)).tolist() == [[4]]


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 60), st.integers(0, 1000), st.booleans(), st.data())
def test_kth_smallest_is_kthvalue(batch, count, seed, ties, data):
    k = data.draw(st.integers(1, count))
    x = torch.randn(batch, count, generator=torch.Generator().manual_seed(seed))
    x = x.round() if ties else x
    assert torch.equal(kth_smallest(x, k), x.kthvalue(k, dim=1, keepdim=True).values)


@settings(deadline=None)
@given(shapes, st.integers(0, 1000))
def test_row_squares(shape, seed):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(row_squares(x), x.square().sum(2))
