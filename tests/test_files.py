"""Files appear complete or not at all, whoever writes them."""

import os
import stat

import pytest
import torch

import linger
from linger.files import replaced


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    with pytest.raises(KeyError), replaced(file) as stream:
        stream.write(b"new")
        raise KeyError
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_permissions_stay_and_links_are_followed(tmp_path):
    file, link = tmp_path / "a.bin", tmp_path / "b.bin"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)
    with replaced(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("write", ["export", "save", "config"])
def test_a_missing_folder_is_named_as_the_caller_named_it(tmp_path, write):
    model = linger.init(torch.nn.Sequential(torch.nn.Linear(4, 2)))
    model(torch.ones(1, 4))
    model.eval()
    path = tmp_path / "none" / "file"
    with pytest.raises(FileNotFoundError, match=r"none/file'.*no folder"):
        if write == "export":
            linger.onnx.export(model, (torch.ones(1, 4),), path)
        elif write == "save":
            linger.save(model, path)
        else:
            linger.config_save_to_yaml(path)
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_written_is_named_as_the_caller_named_the_file(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied", str(tmp_path / ".linger-name"))

    monkeypatch.setattr("tempfile.mkstemp", refuse)  # root may write everywhere
    match = r"cannot write .*model\.onnx': Permission denied in the folder"
    with pytest.raises(PermissionError, match=match) as error, replaced(tmp_path / "model.onnx"):
        pass
    assert ".linger-name" not in str(error.value)
