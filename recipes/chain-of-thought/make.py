"""Makes train.jsonl and valid.jsonl: the parity of eight bits, with the parity of each beginning as reasoning.

    python3 recipes/chain-of-thought/make.py

Of the 256 lists of bits, 160 are trained on and the other 96 are measured on; the order follows from a fixed generator.
"""

import json
from pathlib import Path

BITS = 8
TRAINED = 160


def record(number: int) -> dict[str, str]:
    bits = [number >> place & 1 for place in range(BITS)]
    parities = [sum(bits[: place + 1]) % 2 for place in range(BITS)]
    return {
        "prompt": "".join(map(str, bits)),
        "reasoning": "".join(map(str, parities)),
        "answer": ["even", "odd"][parities[-1]],
    }


def shuffled(count: int) -> list[int]:
    state, order = 1, list(range(count))
    for place in range(count - 1, 0, -1):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        other = (state >> 33) % (place + 1)
        order[place], order[other] = order[other], order[place]
    return order


def main() -> None:
    folder = Path(__file__).parent
    numbers = shuffled(2**BITS)
    for name, chosen in [("train", numbers[:TRAINED]), ("valid", numbers[TRAINED:])]:
        lines = [json.dumps(record(number)) + "\n" for number in chosen]
        (folder / f"{name}.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
