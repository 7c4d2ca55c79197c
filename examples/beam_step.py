"""One step of a Beam pipeline: a PTransform whose dead letters are an output of their own.

    python examples/beam_step.py OUTPUT [Beam's options]

Reads the embedded sample; any collection of dicts with a field of picture bytes will do.
"""

import sys
import tempfile
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from ppfr_ops.contracts.records import records_schema
from ppfr_ops.engines.beam import SanitizeFaces
from ppfr_ops.sample import write_sample


def main(output: str, options: list[str]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        beam.Pipeline(options=PipelineOptions(options)) as pipeline,
    ):
        write_sample(Path(folder), count=24, identities=6)
        rows = pipeline | beam.io.ReadFromParquet(f"{folder}/*.parquet")
        done = rows | SanitizeFaces(method="stochastic-local", identity_column="identity")
        schema = pa.schema(list(records_schema(identity=True)))
        done.published | beam.io.WriteToParquet(
            f"{output}/faces", schema, file_name_suffix=".parquet"
        )
        (
            done.dead_letters
            | beam.Map(lambda letter: f"{letter['record_id']},{letter['dead_letter']}")
            | (beam.io.WriteToText(f"{output}/dead_letters", file_name_suffix=".csv"))
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
