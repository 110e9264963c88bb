"""What becomes of a container's spec: read to know what it asks for, and edited once it has a grant.

Between the two it is kept here, by the number of its conversation. Knows nothing of grants' lives, of placement, nor of
who asks; reads the host (CDI specs, device nodes) and changes nothing of it but, in user namespaces, the nodes of MIG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gpuportion import paths
from gpuportion.allocator import fast_json, fields, injection, mig_injection, names
from gpuportion.allocator.cdi_files import CdiFiles
from gpuportion.allocator.mig.portion import MigPortion
from gpuportion.shim.image_drivers import Image
from gpuportion.shim.request import USER, from_container, is_sandbox
from gpuportion.shim.spec import Injection, change

Head = Mapping[str, Any]
Reply = tuple[dict[str, Any], bytes]


@dataclass(slots=True)
class Kept:
    """A spec that was read. `id`: of its container."""

    id: str
    spec: dict[str, Any]
    image: Image


class Editing:
    def __init__(self, files: CdiFiles) -> None:
        self._files = files
        self._kept: dict[int, Kept] = {}
        self.operations: Final[Mapping[str, Callable[[int, Head, bytes], Reply]]] = {
            "read": self._read,
            "edit": self._edit,
            "edit-for-mig": self._edit_for_mig,
            "drop": self._drop,
        }

    def _read(self, number: int, head: Head, config: bytes) -> Reply:
        spec = fields.spec(config)
        annotations = fields.annotations_of(spec)
        request = from_container(fields.environment(spec), annotations)
        image = Image(fields.image_drivers(head), fields.image_mounts(head))
        linux = spec.get("linux")
        self._kept[number] = Kept(str(head["id"]), spec, image)
        told = {
            "request": None if request is None else request.to_json(),
            "sandbox": is_sandbox(annotations),
            "user": annotations.get(USER),
            "name": names.name_of(str(head["id"]), spec),
            "label": str(linux.get("mountLabel") or "") if isinstance(linux, dict) else "",
        }
        return told, b""

    def _edit(self, number: int, head: Head, _: bytes) -> Reply:
        kept, specs = self._kept.pop(number), self._files.specs()
        gathered = injection.gather(
            specs,
            injection.driver_of(specs, [injection.Card(*card) for card in head["cards"]]),
            head["folder"],
            token=head["token"],
            container=kept.id,
            socket=paths.socket_path(),
            mounts=fields.mounts_of(kept.spec),
            image=kept.image,
        )
        return _changed(kept, gathered)

    def _edit_for_mig(self, number: int, head: Head, _: bytes) -> Reply:
        kept = self._kept.pop(number)
        gathered = mig_injection.gather(
            self._files.specs(),
            MigPortion(**head["portion"]),
            token=head["token"],
            container=kept.id,
            socket=paths.socket_path(),
            before=kept.spec,
        )
        return _changed(kept, gathered)

    def _drop(self, number: int, _: Head, __: bytes) -> Reply:
        self._kept.pop(number, None)
        return {}, b""


def _changed(kept: Kept, gathered: Injection) -> Reply:
    edited = change(kept.spec, gathered)
    removed = [names.printable(each, 512) for each in edited.removed]
    return {"removed": removed}, fast_json.dumps(edited.spec)
