"""Options of the engines: how a run is carried, never what comes out of it."""

from typing import Literal

from ppfr_ops.options import Options, option


class EngineOptions(Options):
    """Options of ``ppfr sanitize`` alone."""

    engine: Literal["auto", "local", "ray"] = option(
        "auto",
        "What carries the work. local: processes of this machine, and nothing else to start; ray: "
        "Ray. auto: ray where it is asked for, by an address, GPUs or --cluster-wait, else local.",
    )
    actors: int | None = option(
        None,
        "Number of workers.",
        default_text="one for each CPU, or as many as the GPUs carry",
        ge=1,
    )
    gpus_per_actor: float = option(
        0.0, "GPUs that each worker gets, on Ray; with a fraction, workers share one.", ge=0
    )
    ray_address: str | None = option(
        None,
        "Address of a running Ray cluster. With --engine ray and without it, and without the "
        "environment variable RAY_ADDRESS, Ray is started on this machine.",
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

    @property
    def chosen(self) -> Literal["local", "ray"]:
        """The engine, ``auto`` resolved."""
        if self.engine != "auto":
            return self.engine
        return "ray" if self.ray_address or self.gpus_per_actor or self.cluster_wait else "local"
