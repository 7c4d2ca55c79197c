"""One step of a Hugging Face pipeline: ``datasets.map`` with a plain function.

    python examples/hugging_face.py OUTPUT

Loads the embedded sample; ``datasets.load_dataset("somebody/faces")`` gives the same columns.
"""

import sys
import tempfile
from pathlib import Path

import datasets

from ppfr_ops import sanitize_batch
from ppfr_ops.sample import write_sample


def main(output: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_sample(Path(folder) / "in", count=24, identities=6)
        faces = datasets.load_dataset(
            "parquet", data_files=f"{folder}/in/*.parquet", split="train", cache_dir=folder
        )
        done = faces.cast_column("image", datasets.Image(decode=False)).map(
            sanitize_batch,
            batched=True,
            batch_size=16,
            fn_kwargs={"method": "stochastic-local", "identity_column": "identity"},
            # What is not named here would stay: every column of the original.
            remove_columns=faces.column_names,
        )
        published = done.filter(lambda code: code is None, input_columns="dead_letter")
        published = published.remove_columns("dead_letter").cast_column("image", datasets.Image())
        published.save_to_disk(output)
    print(f"{len(published)} of {len(done)} faces published, size {published[0]['image'].size}")


if __name__ == "__main__":
    main(sys.argv[1])
