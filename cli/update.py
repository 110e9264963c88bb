"""`gpuportion update`: another amount of GPU memory for a container that runs."""

from __future__ import annotations

import argparse
from typing import Final

from gpuportion import client, sizes
from gpuportion.cli.command import Plain, add_json, print_json

WAIT: Final = 10.0


class Update(Plain):
    help = "give a running container more or less GPU memory"
    epilog = (
        "  gpuportion update train --gpu-memory 6G\n\n"
        "It holds from the container's next allocation on. Only root may ask for it. To grow, the GPU needs room;\n"
        "below what is in use a grant shrinks only with --force: nothing is ended then, and the container gets\n"
        "nothing new until it uses less."
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("container", metavar="CONTAINER", help="its name, its id or how that begins")
        parser.add_argument(
            "--gpu-memory",
            metavar="AMOUNT",
            required=True,
            help="memory on each of its GPUs; 4G,8G for each in order",
        )
        parser.add_argument("--force", action="store_true", help="also below what is in use")
        add_json(parser)

    def run(self, args: argparse.Namespace) -> int:
        asked = {"container": args.container, "memory": args.gpu_memory, "force": args.force}
        answer = client.ask("update", wait=WAIT, **asked).head
        if args.json:
            print_json(answer)
            return 0
        amounts = " and ".join(f"{sizes.both(gpu['limit'])} of GPU {gpu['index']}" for gpu in answer["gpus"])
        print(f"{answer['name'] or answer['container'][:12]} has {amounts} now")
        return 0


COMMAND: Final = Update()
