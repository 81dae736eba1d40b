"""A folder that cannot take the results is told before the server starts, to root too, and nothing is left behind."""
import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from firstframe.demo.cli.out_folder import complaint


@pytest.fixture
def forbidden():
    """A folder that this process may look into but not write to. root becomes another user for as long: it may write anywhere."""
    folder = Path(tempfile.mkdtemp())
    (folder / "inside").mkdir()
    folder.chmod(0o555)
    (folder / "inside").chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    assert complaint(tmp_path / "new" / "out") is None and complaint(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    assert complaint(file) == "is a file"
    assert complaint(file / "a" / "b") == f"lies below {str(file)!r}, which is a file"
    assert file.read_text() == "kept"


def test_a_folder_without_write_permission(forbidden):
    assert complaint(forbidden / "inside") == "cannot be written (Permission denied)"


def test_a_parent_without_write_permission(forbidden):
    assert complaint(forbidden / "new") == "cannot be written (Permission denied)"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
@pytest.mark.parametrize("folder", ["/proc", "/proc/x", "/proc/x/y"])
def test_where_even_root_cannot_write(folder):
    assert complaint(Path(folder)).startswith("cannot be written (")


def test_a_read_only_file_system_and_what_was_made_on_the_way(tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    assert complaint(tmp_path / "new" / "out") == "cannot be written (Read-only file system)"
    assert list(tmp_path.iterdir()) == []
