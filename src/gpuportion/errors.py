"""What can be refused, and with which sentence.

Every refusal has a code, a text made from the table below and an exit status; docs/messages.md has one
paragraph per code, which a test holds. Anything that is not a `GpuportionError` is a bug and keeps its
traceback.
"""

from __future__ import annotations

from typing import Final

TEMPLATES: Final = {
    "GP101": (
        "{subject} was not started: it asks for {asked}; {best}.\n{holders}\nTry {suggestion}`gpuportion ps`."
    ),
    "GP102": "{key}={problem}",
    "GP103": 'unknown MIG profile "{profile}" on {models}. Available: {known}.',
    "GP104": "GPU_MIG={profile} conflicts with {key}: the profile has {has}. Drop one of them.",
    "GP105": (
        "no MIG profile on this node ({models}) has {asked}; the largest is {largest} with {memory} MiB."
    ),
    "GP106": "{keys} contradict each other: {why}. Drop one of them.",
    "GP107": "{key}={value} {why}",
    "GP108": "{key} is not known. Did you mean {nearest}? A misspelt request is never taken for no request.",
    "GP109": "{what} cannot be served by this node: {why}",
    "GP110": (
        "{subject} is refused: {what}.\nThis is a rule of the administrator ({key}; `gpuportion config show` "
        "lists them). {hint}"
    ),
    "GP111": "the grant was not changed: {what}; {why}{hint}",
    "GP112": "the role of {what} was not changed: {why}",
    "GP201": "{detail}",
    "GP202": "{detail}",
    "GP203": "{detail}",
    "GP301": (
        "the gpuportion daemon does not answer on {socket} (waited {waited} s). Containers already running "
        "keep their limits. Start it: systemctl start gpuportiond, or: gpuportion daemon."
    ),
    "GP302": (
        "this node cannot enforce a memory limit: {why}. The container was not started. "
        "Run `gpuportion doctor`."
    ),
    "GP303": "the daemon does not allow this: {why}",
    "GP304": "the request is not understood: {why}",
    "GP305": "{what} was not found: {why}",
    "GP306": "{what} failed: {why}",
    "GP307": "{source}, {where}: {why}",
    "GP308": "{path} was not changed: {why}",
    "GP309": (
        "this node cannot hold a process to a portion of a GPU: {why}. The command was not started. "
        "Run `gpuportion doctor`."
    ),
    "GP310": (
        "the low-level OCI runtime cannot be started: {why}. Name runc or crun in the engine's environment "
        "(GPUPORTION_RUNTIME=/usr/sbin/runc) or in /etc/gpuportion/runtime.conf (runtime=/usr/sbin/runc)."
    ),
    "GP311": "the container leaves no place for a memory limit: {why}. It was not started.",
    "GP401": (
        "{who} holds {held} of GPU {gpu} without a grant; nobody else is granted that memory. End it, or start its "
        "container with --runtime=gpuportion."
    ),
    "GP402": (
        "{who} holds {held} of GPU {gpu}, {beyond} more than its grant of {limit} (processes {processes}); nobody else "
        "is granted that memory. Give it more (`gpuportion update`), or end it."
    ),
    "GP403": "{process} was sent {signal}, because {why} (audit: stop). {then}.",
}


class GpuportionError(Exception):
    """A refusal or failure with a sentence for the user. `code` is a key of TEMPLATES; exit status 1 or 2."""

    def __init__(self, code: str, *, exit_status: int = 1, **values: object) -> None:
        self.code = code
        self.values = values
        self.exit_status = exit_status
        super().__init__(TEMPLATES[code].format(**values))

    @property
    def text(self) -> str:
        """The message as users see it: `GP102 GPU_MEMORY_LIMIT=4000 has no unit. ...`"""
        return f"{self.code} {self}"


class RefusedError(Exception):
    """A refusal that came over the wire: the text is complete, code included."""

    exit_status = 1

    def __init__(self, text: str) -> None:
        self.code = text.split(" ", 1)[0]
        self.text = text
        super().__init__(text)
