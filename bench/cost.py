"""Days and money for 10^6, 10^8 and 10^9 faces, from a measured rate and stated prices.

Every figure of the table is computed here from the arguments: a rate that a bench printed, the
number of cores that it was measured on, requests a unit as ``bench/million_units.py`` counts them,
and prices that the caller states. Nothing is looked up.

    python bench/cost.py --rate 56 --cores 2 --requests-first 14 --requests-again 1 \\
        --core-hour 0.045 --put-1000 0.005 --machines 16 --cores-a-machine 32
"""

import argparse

UNIT_ROWS = 1000


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def table(arguments: argparse.Namespace) -> str:
    """Markdown."""
    per_core = arguments.rate / arguments.cores
    cores = arguments.machines * arguments.cores_a_machine
    lines = [
        "| faces | units | core hours | days on one machine of "
        f"{arguments.cores_a_machine} cores | days on {arguments.machines} | cores, $ "
        "| requests, $ | requests of a run with nothing to do |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for power in (6, 8, 9):
        faces = 10**power
        units = faces // UNIT_ROWS
        hours = faces / per_core / 3600
        requests = units * arguments.requests_first
        figures = (
            hours,
            hours / arguments.cores_a_machine / 24,
            hours / cores / 24,
            hours * arguments.core_hour,
            requests / 1000 * arguments.put_1000,
            units * arguments.requests_again,
        )
        lines.append(f"| 10^{power} | {units:,} | {' | '.join(map(shown, figures))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, required=True, help="faces/s, measured")
    parser.add_argument("--cores", type=int, required=True, help="that it was measured on")
    parser.add_argument("--requests-first", type=float, required=True, help="a unit, first run")
    parser.add_argument("--requests-again", type=float, required=True, help="a unit, no-op run")
    parser.add_argument("--core-hour", type=float, required=True, help="price of a core, $")
    parser.add_argument("--put-1000", type=float, required=True, help="of 1,000 requests, $")
    parser.add_argument("--machines", type=int, default=16)
    parser.add_argument("--cores-a-machine", type=int, default=32)
    print(table(parser.parse_args()))


if __name__ == "__main__":
    main()
