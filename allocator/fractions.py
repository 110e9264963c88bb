"""The GPUs of a node that serve by fractions: those without the MIG role, and of these the ones in MIG mode as ill.

Put together again when a GPU, a role or what was read of MIG is another, and not for each request. Places nothing."""

from __future__ import annotations

import dataclasses

from gpuportion.allocator.devices import Gpu
from gpuportion.allocator.mig import modes
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.roles import Roles
from gpuportion.allocator.pool import Pool


class Fractions:
    def __init__(self, roles: Roles, node: MigNode) -> None:
        self._roles = roles
        self._node = node
        self._pool = Pool(())
        self._made_of: tuple[tuple[Gpu, ...], frozenset[str], int] = ((), frozenset(), -1)

    def pool(self, gpus: tuple[Gpu, ...]) -> Pool:
        """Those of `gpus`, which are all there are."""
        before, self._made_of = self._made_of, (gpus, self._roles.mig, self._node.version)
        if self._made_of != before:
            self._pool = Pool([self._by_mode(gpu) for gpu in gpus if not self._roles.has_mig_role(gpu.uuid)])
        return self._pool

    def _by_mode(self, gpu: Gpu) -> Gpu:
        trouble = gpu.trouble or modes.trouble(gpu.index, False, self._node.reading(gpu.uuid))
        return dataclasses.replace(gpu, trouble=trouble) if trouble else gpu
