"""``benchmarks/accuracy/learning.py``: the tables are made with the command's own functions."""

from __future__ import annotations

import numpy as np

from benchmarks.accuracy.learning import Product, main, warned
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.export.learn.edited import Graphs


def test_the_tables(small_bundle, capsys):
    run = small_bundle.parent
    product = Product(run, "solar_cell_mono", 7)
    held = Graphs(open_bundle(small_bundle)).centres("prototypes", "solar_cell_mono")
    np.testing.assert_allclose(product.centres, held, rtol=1e-6)
    one = product.draw(5, 0, 0)
    assert all(0 <= share <= 100 for share in one[:5])
    assert one == product.draw(5, 0, 0)
    main(
        [str(run), "--category", "solar_cell_mono", "--unseen", "7", "--draws", "1", "--only", "1"]
    )
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["none", "5"]


def test_a_defective_image_among_good_ones_is_warned_of():
    bad = np.array([8.0, 9.0, 10.0, 11.0])
    assert warned(np.array([3.0, 9.5, 4.0]), bad, 5.0).tolist() == [False, True, False]
