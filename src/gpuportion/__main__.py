"""`gpuportion COMMAND ...`: finds the command, parses its arguments, turns errors into exit statuses.

0 done, 1 refused or failed, 2 bad usage, 130 interrupted. Anything that is not a refusal is a bug of ours and
keeps its traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gpuportion.cli import arguments, registry
from gpuportion.errors import GpuportionError, RefusedError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(words)
        sys.stdout.flush()  # here, where a reader that went away is known for what it is
        return status
    except (GpuportionError, RefusedError) as refusal:
        print(refusal.text, file=sys.stderr)
        return refusal.exit_status
    except PermissionError as problem:
        return _not_root(words[0], problem)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()


def overview() -> str:
    """The text of `gpuportion --help`."""
    width = max(map(len, registry.MODULES)) + 2
    lines = [f"  {name.ljust(width)}{registry.load(name).help}" for name in registry.MODULES]
    return "\n".join(
        [
            "usage: gpuportion COMMAND ...",
            "",
            "Gives a container a portion of a GPU, and holds it to that portion.",
            "",
            *lines,
            "",
            "gpuportion COMMAND --help tells more; gpuportion --version the version.",
        ]
    )


def parser_of(name: str, command: registry.Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"gpuportion {name}",
        usage=f"gpuportion {name} {command.usage}" if command.usage else None,
        description=f"{command.help[0].upper()}{command.help[1:]}.",
        epilog=command.epilog or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.arguments(parser)
    return parser


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        return _version()
    if words[0] not in registry.MODULES:
        return _unknown(words[0])
    return _run(words[0], words[1:])


def _run(name: str, words: list[str]) -> int:
    command = registry.load(name)
    parser = parser_of(name, command)
    rest: list[str] = []
    if command.takes_command:
        words, rest = arguments.split(words, arguments.own_options(parser))
    args = parser.parse_args(words)
    args.parser, args.rest = parser, rest
    return command.run(args)


def _version() -> int:
    from importlib import metadata

    print(f"gpuportion {metadata.version('gpuportion')}")
    return 0


def _unknown(word: str) -> int:
    from difflib import get_close_matches

    near = get_close_matches(word, registry.MODULES, n=1)
    hint = f"Did you mean {near[0]}?" if near else "See gpuportion --help."
    print(f"gpuportion: {word!r} is not a command. {hint}", file=sys.stderr)
    return 2


def _not_root(command: str, problem: PermissionError) -> int:
    """Said to those who can do something about it; root, who may do all, met a bug of ours."""
    import os

    if os.geteuid() == 0:
        raise problem
    why = f"{problem.filename}: permission denied. Run it as root."
    print(GpuportionError("GP306", what=f"gpuportion {command}", why=why).text, file=sys.stderr)
    return 1


def _reader_gone() -> int:
    """`gpuportion ps | head -1`: nobody's error. Python must not flush into the closed pipe at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
