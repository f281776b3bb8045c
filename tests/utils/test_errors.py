"""User errors are one line; bugs keep their traceback."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from pe_dense.datasets.label_maps import MapError
from pe_dense.utils.checkpoint import CheckpointError
from pe_dense.utils.errors import (
    ConfigError,
    InputError,
    UserError,
    first_line,
    library_errors,
    one_line_errors,
    user_message,
)


def ended_by(error, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise error
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("kind", [UserError, InputError, ConfigError, CheckpointError])
def test_user_errors_are_one_line(kind, capsys):
    assert ended_by(kind("first\nsecond"), capsys) == "error: first second"


class OneBrokenSample(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise MapError("label map a.png is empty") if index == 0 else IndexError


def test_errors_of_data_workers(capsys):
    with pytest.raises(SystemExit), one_line_errors():
        list(torch.utils.data.DataLoader(OneBrokenSample(), num_workers=1))
    assert capsys.readouterr().err == "error: label map a.png is empty\n"


@pytest.mark.parametrize("kind", [KeyError, ValueError, TypeError, NotImplementedError, RuntimeError, IndexError])
def test_faults_keep_their_traceback(kind):
    """A KeyError in a training step was once printed as `error: gt_masks`."""
    with pytest.raises(kind), one_line_errors():
        raise kind("gt_masks")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "Permission denied; change the permissions"),
        (errno.ENOSPC, "No space left on device; free some disk space"),
        (errno.ENOTDIR, "Not a directory; a part of that path is a file"),
        (errno.EROFS, "Read-only file system; name a folder on a writable file system"),
    ],
)
def test_errors_of_the_system_name_path_and_remedy(number, words, capsys):
    message = ended_by(OSError(number, os.strerror(number), "runs/a.pth"), capsys)
    assert message.startswith(f"error: runs/a.pth: {words}")


def test_other_system_errors_keep_their_traceback():
    assert user_message(OSError(errno.ENOTCONN, "not connected")) is None
    assert user_message(OSError(errno.EACCES, "Permission denied")) is None  # of which path?
    assert user_message(FileNotFoundError("image a.png does not exist")) == "image a.png does not exist"


def test_traceback_on_demand(monkeypatch):
    monkeypatch.setenv("PE_DENSE_TRACEBACK", "1")
    with pytest.raises(ConfigError), one_line_errors():
        raise ConfigError("wrong")


def run_code(code, **environment):
    command = [sys.executable, "-c", f"from pe_dense.utils.errors import one_line_errors\n{code}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment, text=True
    )


def test_reader_of_the_output_ends_early():
    code = (
        "import sys, logging\n"
        "with one_line_errors():\n"
        "    logging.basicConfig(stream=sys.stdout, level='INFO')\n"
        "    print('first', flush=True); sys.stdin.readline()\n"
        "    for i in range(20000): print(i); logging.info(i)\n"
        "    print('done', file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", f"from pe_dense.utils.errors import one_line_errors\n{code}"]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stderr.read() == "done\n"
    assert process.returncode == 0


def test_characters_that_the_terminal_lacks():
    with run_code("with one_line_errors(): print('caf\\u00e9', '\\udcff')", PYTHONIOENCODING="ascii") as process:
        output, error = process.communicate()
    assert (output, error) == ("caf\\xe9 \\udcff\n", "")


def test_a_file_system_encoding_without_the_characters():
    error = UnicodeEncodeError("ascii", "caf\u00e9", 3, 4, "ordinal not in range(128)")
    assert user_message(error).endswith("that the encoding ascii cannot represent: set PYTHONUTF8=1")


def test_errors_of_libraries_while_building():
    message = r"^model: ValueError: optimizer got an empty parameter list \(in torch"
    with pytest.raises(ConfigError, match=message), library_errors("model"):
        torch.optim.SGD([], lr=1)
    with pytest.raises(CheckpointError), library_errors("model"):
        raise CheckpointError("damaged")


def test_a_fault_in_own_code_while_building():
    from pe_dense.backbones.pe_configs import get_pe_config

    with pytest.raises(ZeroDivisionError), library_errors("model"):
        get_pe_config(dict(patch_size=0, width=8, layers=1, heads=2, mlp_ratio=4.0))


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError("\n one\n two"), "one"), (EOFError(), "EOFError"), (ValueError("\n"), "ValueError")],
)
def test_first_line(error, expected):
    assert first_line(error) == expected
