"""``python -m tests.zoo [--seeds 0 2] [--only TEXT]``: the confusion table."""

from __future__ import annotations

import argparse
import time
import warnings

import torch

from tests.zoo.plants import HEALTHY, PLANTED
from tests.zoo.table import confusion, examine


def main() -> None:
    parser = argparse.ArgumentParser(description="Scan the zoo and print the confusion table.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", help="part of a specimen's name or code")
    said = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    began = time.monotonic()
    chosen = [
        each
        for each in (*PLANTED, *HEALTHY)
        if said.only in f"{each.code or 'healthy'} {each.name}"
    ]
    rows = [examine(specimen, seed) for specimen in chosen for seed in said.seeds]
    print(confusion(rows))
    print(f"{len(rows)} nets, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
