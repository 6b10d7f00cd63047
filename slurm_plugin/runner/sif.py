"""Reads one object out of a SIF file: the OCI configuration that Apptainer keeps in images built from a registry.

Format: github.com/apptainer/sif, ``pkg/sif/sif.go`` (global header) and ``descriptor.go`` (descriptors of 585 bytes).
"""

import json
import struct
from typing import Any, Dict, Optional

_MAGIC = b"SIF_MAGIC\0"
# launch 32s, magic 10s, version 3s, arch 3s, id 16s; then int64: created, modified, free, total, offset of descriptors…
_HEADER = struct.Struct("<32s10s3s3s16s8q")
# int32 type, bool used, uint32 id, group, link; int64 offset, size, size with padding, created, modified, uid, gid; name
_DESCRIPTOR = struct.Struct("<i?III7q128s")
_DESCRIPTOR_SIZE = 585
_OCI_CONFIG = "oci-config.json"
_MAX_OBJECT = 1 << 20


def read_object(path: str, name: str) -> Optional[bytes]:
    """Return the named object; None if the file has none. ValueError: not a SIF file; OSError: not readable."""
    with open(path, "rb") as stream:
        header = stream.read(_HEADER.size)
        if len(header) < _HEADER.size or header[32:42] != _MAGIC:
            raise ValueError("%s is not a SIF image" % path)
        total, offset = _HEADER.unpack(header)[8:10]
        stream.seek(offset)
        table = stream.read(min(total, 256) * _DESCRIPTOR_SIZE)
        for start in range(0, len(table) - _DESCRIPTOR_SIZE + 1, _DESCRIPTOR_SIZE):
            fields = _DESCRIPTOR.unpack_from(table, start)
            found = fields[12].split(b"\0", 1)[0].decode("utf-8", "replace")
            if fields[1] and found == name and fields[6] <= _MAX_OBJECT:
                stream.seek(fields[5])
                return stream.read(fields[6])
    return None


def oci_config(path: str) -> Optional[Dict[str, Any]]:
    """Return the OCI image configuration of a SIF image; None if it was not made from an OCI image."""
    data = read_object(path, _OCI_CONFIG)
    if data is None:
        return None
    config: Dict[str, Any] = json.loads(data.decode("utf-8"))
    return config
