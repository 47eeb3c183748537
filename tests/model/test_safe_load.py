"""Checkpoints of others: only tensors are read, and a damaged file is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from hvq_edge.cli.app import main
from hvq_edge.errors import CheckpointError
from hvq_edge.model.safe_load import load_tensors


def test_a_pickle_bomb_is_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bomb = tmp_path / "bomb.pth"
    torch.save({"state_dict": _Bomb(tmp_path / "exploded")}, bomb)
    with pytest.raises(SystemExit) as exit_:
        main(["load", str(bomb), "--out", "run"])
    assert exit_.value.code == 2
    assert "it was not" in capsys.readouterr().err
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "run").exists()
    # The bomb is a real one: an unsafe load sets it off.
    torch.load(bomb, weights_only=False)
    assert (tmp_path / "exploded").exists()


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_damaged_checkpoints_are_named(content, tmp_path):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.pth"):
        load_tensors(path)


def test_a_list_is_not_a_checkpoint(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="not a dictionary"):
        load_tensors(tmp_path / "list.pth")


def test_a_file_of_nameless_entries_is_no_checkpoint(tmp_path):
    torch.save({3: torch.zeros(1)}, tmp_path / "numbers.pth")
    with pytest.raises(CheckpointError, match="its entries have no names"):
        load_tensors(tmp_path / "numbers.pth")
