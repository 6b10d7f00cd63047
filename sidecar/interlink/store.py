"""Which pods an interLink plugin was given: one 0600 file each, for interLink can't be asked which pods it has."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slurm_plugin.errors import ConfigurationError
from slurm_plugin.job import PodUid
from slurm_plugin.jobdir import check_uid
from slurm_plugin.pod import Pod

from .states import Known


class Store:
    """The files. Blocking; each call is a file or two."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def load(self) -> Iterator[Known]:
        """Yield every pod that was written. Raises ConfigurationError where the directory can't be used."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = sorted(self._directory.glob("*.json"))
        except OSError as error:
            raise ConfigurationError(f"interlink.directory: {error.filename}: {error.strerror}") from error
        for path in paths:
            data = json.loads(path.read_text(encoding="utf-8"))
            yield Known(Pod.model_validate(data["pod"]), data["job_id"])

    def write(self, known: Known) -> None:
        """Write a pod, atomically."""
        data = {"pod": known.pod.model_dump(mode="json", by_alias=True, exclude_unset=True), "job_id": known.job_id}
        descriptor, name = tempfile.mkstemp(dir=self._directory)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(data, stream)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(self._path(known.uid))

    def remove(self, uid: PodUid) -> None:
        """Forget a pod; none there is a no-op."""
        self._path(uid).unlink(missing_ok=True)

    def _path(self, uid: PodUid) -> Path:
        return self._directory / f"{check_uid(uid)}.json"
