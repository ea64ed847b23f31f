"""What keeps a sidecar from starting. Each text is one line that names the place."""


class StartError(Exception):
    """What the user gave cannot work; exit status 2."""


class BindError(StartError):
    """A listener's address cannot be had. Once the sidecar serves, this refuses one change and nothing else."""
