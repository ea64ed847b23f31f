"""HTTP/2 (RFC 9113) and HPACK (RFC 7541), sans-IO: bytes in, events out, and back."""
