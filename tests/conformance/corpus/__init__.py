"""The corpus, one module a topic. REQUESTS and RESPONSES have all of it; a case's name says what is odd about it."""

from __future__ import annotations

from tests.conformance.case import RequestCase, ResponseCase
from tests.conformance.corpus import (
    request_chunks,
    request_connection,
    request_fields,
    request_length,
    request_line,
    response_framing,
    response_head,
)

REQUESTS: tuple[RequestCase, ...] = (
    *request_length.CASES,
    *request_chunks.CASES,
    *request_line.CASES,
    *request_fields.CASES,
    *request_connection.CASES,
)
RESPONSES: tuple[ResponseCase, ...] = (*response_framing.CASES, *response_head.CASES)
