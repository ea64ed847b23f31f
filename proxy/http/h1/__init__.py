"""HTTP/1.1 as values (RFC 9112): request.py and response.py read, write.py writes, reader.py is what readers share."""
