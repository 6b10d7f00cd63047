"""What a client can do wrong once it is connected."""


class BrokenProtocolError(Exception):
    """The client does not speak the protocol that was agreed on, or asks too much of it: it can only be left."""
