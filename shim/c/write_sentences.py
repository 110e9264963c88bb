"""Writes those sentences of `gpuportion.errors` that the C programs say into a C header: they stand once.

Usage: write_sentences.py SRC_FOLDER HEADER
"""

from __future__ import annotations

import json
import sys


def header(templates: dict[str, str]) -> str:
    rows = [f"    {{{json.dumps(code)}, {json.dumps(text)}}}," for code, text in templates.items()]
    return "\n".join(["static const struct template TEMPLATES[] = {", *rows, "};", ""])


def main() -> None:
    source, target = sys.argv[1:]
    sys.path.insert(0, source)
    from gpuportion.errors import TEMPLATES

    # GP3xx: what keeps a node from serving; the rest is said by the daemon.
    with open(target, "w", encoding="ascii") as out:
        out.write(header({code: text for code, text in TEMPLATES.items() if code.startswith("GP3")}))


if __name__ == "__main__":
    main()
