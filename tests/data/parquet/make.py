#!/usr/bin/env python3
"""Writes the Parquet files of this folder, as `datasets` writes them: pip install pyarrow, python3 make.py."""
import datetime
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent
message = pa.struct([("role", pa.string()), ("content", pa.string()), ("name", pa.string())])


def said(number):
    return [
        {"role": "user", "content": f"Question {number}?", "name": None},
        {"role": "assistant", "content": "It is a fox." * (1 + number % 3), "name": None},
    ]


rows = 12
columns = {
    "id": pa.array(range(rows), pa.int32()),
    # Row 3 has no messages, and row 5 is null.
    "messages": pa.array([[] if n == 2 else None if n == 4 else said(n) for n in range(rows)], pa.list_(message)),
    "tools": pa.array([json.dumps([{"name": "clock"}]) if n == 7 else None for n in range(rows)], pa.string()),
    "text": pa.array([None if n == 1 else f"the cat sat on mat {n}" for n in range(rows)], pa.string()),
    "day": pa.array([datetime.date(2024, 1, 1 + n) for n in range(rows)], pa.date32()),
    "picture": pa.array([bytes([n]) for n in range(rows)], pa.binary()),
    "score": pa.array([n / 4 for n in range(rows)], pa.float64()),
    "words": pa.array([["the", "cat"] for _ in range(rows)], pa.list_(pa.string())),
}
table = pa.table(columns)
pq.write_table(table, here / "conversations.parquet", compression="snappy", row_group_size=5)
pq.write_table(table.select(["text"]), here / "zstd.parquet", compression="zstd")
