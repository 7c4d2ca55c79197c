"""What goes wrong, in words that may be shown."""

import os


class UserError(ValueError):
    """Something that the user has to change; its text is one line, made for them, and holds
    nothing of the data. The commands print it and end with exit code 2."""

    exit_code = 2


class EngineError(UserError):
    """The engine does not do its work, whatever the options; the same command goes on later."""

    exit_code = 1


def describe(error: BaseException) -> str:
    """An error without its text, which may quote paths or bytes: type, errno, and where."""
    trace = error.__traceback__
    place = "?"
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "?")
        if name.partition(".")[0] in ("ppfr_ops", "__main__"):
            place = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    text = type(error).__name__
    if isinstance(error, OSError) and error.errno:
        text += f" ({os.strerror(error.errno)})"
    return f"{text} at {place}"
