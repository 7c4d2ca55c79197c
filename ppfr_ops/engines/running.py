"""``ppfr_ops.run``: a whole run, on the engine that the options choose."""

from importlib.metadata import version

from ppfr_ops.engines.options import EngineOptions
from ppfr_ops.errors import UserError, require
from ppfr_ops.sanitize.conductor import Engine, conduct
from ppfr_ops.sanitize.events import Listener, RunResult, ignore
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.version import __version__


def run(
    options: SanitizeOptions,
    engine: EngineOptions | None = None,
    *,
    listener: Listener = ignore,
    dry_run: bool = False,
) -> RunResult:
    """Sanitize a dataset: what ``ppfr sanitize`` does, without a terminal.

    Args:
        options: what is to be done.
        engine: what carries it; None: processes of this machine.
        listener: is told what happens (``ppfr_ops.sanitize.events``).
        dry_run: sanitize a sample of rows and write nothing.

    Returns:
        Counts, verdict, places and the exit code of the command.

    Raises:
        UserError: wrong options or input; one line that says what to change.

    Examples:
        >>> from ppfr_ops import SanitizeOptions, run
        >>> result = run(SanitizeOptions(input="faces/", output="out/"))  # doctest: +SKIP
        >>> result.exit_code, result.counts.records  # doctest: +SKIP
        (0, 48)
    """
    carry, carrier = chosen_engine(engine or EngineOptions())
    return conduct(options, carry, carrier, listener, dry_run=dry_run)


def chosen_engine(options: EngineOptions) -> tuple[Engine, str]:
    """What does units, and its name and version for the manifest.

    Raises:
        UserError: options that do not go together, or Ray is not installed.
    """
    if options.chosen == "local":
        if options.gpus_per_actor:
            raise UserError("--gpus-per-actor goes with --engine ray")
        from ppfr_ops.engines.local import on_processes

        return lambda job, todo: on_processes(job, todo, options.actors), f"local {__version__}"
    require("ray")
    from ppfr_ops.engines.ray_data import on_ray

    return (
        lambda job, todo: on_ray(
            job,
            todo,
            options.actors,
            options.gpus_per_actor,
            options.ray_address,
            options.cluster_wait,
        ),
        f"ray {version('ray')}",
    )
