"""Options of the engines: how a run is carried, never what comes out of it."""

from pydantic import BaseModel, ConfigDict

from ppfr_ops.options import option


class RayOptions(BaseModel):
    """Options of ``ppfr sanitize`` alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: int | None = option(
        None,
        "Number of workers.",
        default_text="one for each CPU, or as many as the GPUs carry",
        ge=1,
    )
    gpus_per_actor: float = option(
        0.0, "GPUs that each worker gets; with a fraction, workers share one.", ge=0
    )
    ray_address: str | None = option(
        None,
        "Address of a running Ray cluster. Without it, and without the environment variable "
        "RAY_ADDRESS, Ray is started on this machine.",
        private=True,
        environment="RAY_ADDRESS",
    )
    cluster_wait: float = option(
        0.0,
        "Seconds to wait for a cluster that scales, once it was asked for room for --actors "
        "workers.",
        metavar="SECONDS",
        ge=0,
    )
