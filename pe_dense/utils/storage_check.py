"""Compare the sizes of tensors declared in a PyTorch file with the sizes of its records.

PyTorch maps or reads as many bytes as the pickle declares, even beyond the end of a record.
"""

from __future__ import annotations

import io
import pickle
import zipfile

_MAX_PICKLE = 1 << 28
_ITEM_SIZES = dict(
    Double=8, Float=4, Half=2, BFloat16=2, Long=8, Int=4, Short=2, ComplexDouble=16, ComplexFloat=8, QInt32=4
)  # bytes, by names of storage types; 1 for all others


class _Stub:
    """Placeholder for any object in a pickle; accepts all calls and states without effect."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def __hash__(self):
        return id(self)

    def append(self, value):
        pass

    def extend(self, values):
        pass

    def add(self, value):
        pass


class _Unpickler(pickle._Unpickler):
    """Read the structure of a pickle without running any of its code.

    The base class is the Python implementation, since the C one allocates whatever sizes a pickle declares.
    """

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))
        self.storages: dict[str, int] = {}  # bytes by key

    def find_class(self, module: str, name: str):
        return type(f"{module}.{name}", (_Stub,), {})

    def persistent_load(self, pid):
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(key, str) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError(f"unknown reference {str(pid)[:100]}")
        module, _, name = storage.__name__.rpartition(".")
        size = _ITEM_SIZES.get(name.removesuffix("Storage"), 1) if module.startswith("torch") else 1
        self.storages[key] = max(self.storages.get(key, 0), size * count)
        return _Stub()


def short_record(archive: zipfile.ZipFile) -> str | None:
    """Find a record that is missing or shorter than its tensors.

    Args:
        archive: a PyTorch file.

    Returns:
        description of the problem; None if all records are long enough.

    Raises:
        UnpicklingError: if the pickle is damaged.
    """
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        return f"it has {len(names)} records named data.pkl"
    if archive.getinfo(names[0]).file_size > _MAX_PICKLE:
        return f"{names[0]} is larger than {_MAX_PICKLE:,} bytes"
    folder = names[0].removesuffix("data.pkl")
    unpickler = _Unpickler(archive.read(names[0]))
    try:
        unpickler.load()
    except Exception as error:  # opcodes of a damaged pickle may raise any exception
        raise pickle.UnpicklingError(f"{names[0]} is damaged: {type(error).__name__} {error}") from error
    sizes = {record.filename: record.file_size for record in archive.infolist()}
    for key, size in unpickler.storages.items():
        name = f"{folder}data/{key}"
        if sizes.get(name, -1) < size:
            return f"its record {name} has {sizes.get(name, 0):,} bytes of {size:,}"
    return None
