"""What is measured, trained and attacked: beside the pipeline, which imports none of it."""
