"""YAML text -> plain objects; a mistake becomes a sentence with its line. The one importer of yaml."""

from __future__ import annotations

from typing import Any

import yaml

from gpuportion.errors import GpuportionError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(text: str, source: str) -> object:
    """The one document in `text`. GpuportionError GP307 says where in `source` (a file) it is broken."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        why = problem.problem or problem.context or "it is not YAML"
        raise GpuportionError("GP307", source=source, where=where, why=why) from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        first = str(problem).splitlines()[0] if str(problem) else "it is nested too deeply"
        raise GpuportionError("GP307", source=source, where="somewhere", why=first) from None
