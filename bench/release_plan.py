"""What it takes to plan a release: rows of drawn people, dealt to shards; seconds and memory.

python bench/release_plan.py 1000000 [--keep]
"""

import argparse
import os
import resource
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops.sanitize.dealing import deal


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int)
    parser.add_argument("--keep", action="store_true", help="with a kept column of ages")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    sizes = np.maximum(1, (rng.pareto(1.2, asked.rows // 8) * 3).astype(np.int64))
    base = np.repeat(np.arange(len(sizes)), sizes)[: asked.rows]
    codes = rng.integers(0, 256, (len(sizes), 32), np.uint8)
    rng.shuffle(base)
    data = pa.py_buffer(np.ascontiguousarray(codes[base]))
    columns = {
        "person": pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(base), [None, data])
    }
    if asked.keep:
        columns["keep.age"] = pa.array(rng.integers(0, 100, len(base)))
    rows = pa.table(columns)
    del codes, base
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    dealt = deal(rows, np.ones(rows.num_rows, bool), None, os.urandom(32), k=10, rounding="add")
    between = time.perf_counter()
    with open(os.devnull, "wb") as file:
        writer = pq.ParquetWriter(file, dealt.rows(0, 0).schema, compression="zstd")
        for start in range(0, dealt.count, 1000):
            writer.write_table(dealt.rows(start, start + 1000))
        writer.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{rows.num_rows:,} rows, {len(dealt.people.codes):,} people, {dealt.added:,} added: dealt "
        f"in {between - began:.1f} s, written in {time.perf_counter() - between:.1f} s; "
        f"{(peak - before) / 1024:,.0f} MiB beside {rows.nbytes / 2**20:,.0f} MiB of rows"
    )


if __name__ == "__main__":
    main()
