"""Networks and face measures: arrays in, arrays out, no sockets and no memory of earlier frames."""
