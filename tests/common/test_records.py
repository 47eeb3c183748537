"""Records that programs wrote: what is said of a file that this version does not read."""

from __future__ import annotations

import json

import pytest

from hvq_edge.common.records import Strict, read_record
from hvq_edge.errors import BundleError


class Record(Strict):
    """Some keys."""

    one: int
    two: int


def test_of_many_faults_some_are_said_and_all_counted(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps({f"former{number}": 1 for number in range(30)}))
    with pytest.raises(BundleError) as raised:
        read_record(path, Record, BundleError, kind="a record", next_step="write it again")
    said = str(raised.value)
    assert "one: is missing" in said
    assert "; and 27 more." in said
    assert said.count(";") == 5
