"""One step of a Ray Data pipeline: faces are protected between reading and writing.

    python examples/ray_data_step.py OUTPUT

Reads the embedded sample; replace ``read`` by whatever gives a dataset with a column of pictures:
``ray.data.read_parquet``, ``read_images``, ``read_webdataset``, ``from_huggingface``.
"""

import sys
import tempfile
from pathlib import Path

import ray
from ray.data.expressions import col

from ppfr_ops.engines.ray_data import SanitizeFaces, SharedKey
from ppfr_ops.sample import write_sample


def main(output: str) -> None:
    ray.init(include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        write_sample(Path(folder), count=24, identities=6)
        faces = ray.data.read_parquet(folder)
        done = faces.map_batches(
            SanitizeFaces,
            fn_constructor_kwargs={
                "method": "stochastic-local",
                "identity_column": "identity",
                "key": SharedKey(),  # of all workers: photos of a person show one person
            },
            batch_format="pyarrow",
            batch_size=16,
            concurrency=1,
        ).materialize()
    # A face that cannot be published is a row without a picture; nothing is lost silently.
    published = done.filter(expr=col("dead_letter").is_null()).drop_columns(["dead_letter"])
    published.write_parquet(output)
    print(f"{published.count()} of {done.count()} faces published, columns {published.columns()}")


if __name__ == "__main__":
    main(sys.argv[1])
