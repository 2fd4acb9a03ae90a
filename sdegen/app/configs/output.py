"""Where the results of a command go."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Output:
    """Where the results go.

    Args:
        out: Folder of the run; runs/<command>-<UTC time> unless said.
        overwrite: Replace an earlier run in that folder.
    """

    out: str | None = None
    overwrite: bool = False
