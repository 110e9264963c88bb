"""Which GPUs serve by MIG, and not by fractions: those with the MIG role, by UUID.

    /var/lib/gpuportion/roles.json     {"mig": ["GPU-8a4f..."]}; whole or as it was before, whoever is killed

Outside of /run, for a role outlives reboots. A file that is not understood ends the daemon: a GPU without its role
would be given out in another way than the administrator said. Knows nothing of MIG modes, instances or requests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Final, Protocol

from gpuportion.errors import GpuportionError

FILE: Final = "roles.json"


class Roles(Protocol):
    """Whoever knows the roles of this node's GPUs."""

    @property
    def mig(self) -> frozenset[str]:
        """The UUIDs of those with the MIG role."""
        ...

    def has_mig_role(self, uuid: str) -> bool:
        """Whether the GPU of this UUID serves by MIG. One without MIG mode on now can serve nobody then."""
        ...


class KeptRoles:
    """The roles of this node, kept in a file. One process, one thread."""

    def __init__(self, state_dir: str) -> None:
        """GpuportionError GP307: the file is there and is not understood."""
        self._path = f"{state_dir}/{FILE}"
        self.mig = _read(self._path)

    def has_mig_role(self, uuid: str) -> bool:
        return uuid in self.mig

    def give(self, uuids: Iterable[str]) -> None:
        """These GPUs serve by MIG. OSError: it could not be kept, and nothing is changed."""
        self._keep(self.mig | set(uuids))

    def take(self, uuids: Iterable[str]) -> None:
        """These GPUs serve by fractions. OSError: as for `give`."""
        self._keep(self.mig - set(uuids))

    def _keep(self, mig: frozenset[str]) -> None:
        if mig == self.mig:
            return
        os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(f"{self._path}.new", flags, 0o644), "w") as file:
            json.dump({"mig": sorted(mig)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self._path}.new", self._path)
        self.mig = mig


class ByMode:
    """Roles where nobody gave any: a GPU in MIG mode can serve by MIG alone."""

    def __init__(self) -> None:
        self.mig: frozenset[str] = frozenset()

    def update(self, in_mode: Iterable[str]) -> None:
        """These GPUs are in MIG mode now."""
        self.mig = frozenset(in_mode)

    def has_mig_role(self, uuid: str) -> bool:
        return uuid in self.mig


def _read(path: str) -> frozenset[str]:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)) as file:
            found = json.load(file)["mig"]
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as problem:
        raise _broken(path, f"{problem or type(problem).__name__}") from None
    if not isinstance(found, list) or not all(
        isinstance(one, str) and one.startswith("GPU-") for one in found
    ):
        raise _broken(path, "mig is not a list of UUIDs of GPUs")
    return frozenset(found)


def _broken(path: str, why: str) -> GpuportionError:
    mend = "Mend it, or remove it and give the roles again: gpuportion node set-role --mig-enabled"
    return GpuportionError("GP307", source=path, where="which has the roles of GPUs", why=f"{why}. {mend}")
