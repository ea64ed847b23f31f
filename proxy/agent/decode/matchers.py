"""Words that several resources share: addresses, strings, headers, data sources, pointers to ADS."""

from __future__ import annotations

import re
import socket
from typing import Any

from proxy.agent.decode.reader import Reader, join
from proxy.agent.decode.regex import refusal
from proxy.agent.decode.secrets import read_file
from proxy.config.model import Address, StringMatcher
from proxy.config.route import HeaderMatcher, QueryParameterMatcher


def is_ip(host: str) -> bool:
    """Whether `host` is an IPv4 or IPv6 address."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except OSError:
        return False
    return True


def decode_address(reader: Reader | None, parent: Reader, *, ip: bool = True) -> Address:
    """envoy.config.core.v3.Address with a TCP socket_address; with `ip`, the host is an IP address."""
    inner = reader.child("socket_address") if reader else None
    if reader is None or inner is None:
        parent.error("needs an address with a socket_address")
        return Address("0.0.0.0", 0)
    inner.enum("protocol", {"TCP": None})
    host = inner.required("address")
    if host and ip and not is_ip(host):
        inner.error(f"must be an IP address, not {host!r}", "address")
    port = inner.value("port_value")
    if inner.which("port_specifier") != "port_value":
        inner.error("is required", "port_value")
    elif port > 65535:
        inner.error(f"must be within 0 and 65535, not {port}", "port_value")
    return Address(host, port)


def decode_regex(reader: Reader | None) -> str:
    """envoy.type.matcher.v3.RegexMatcher; only RE2's syntax, and of it what Python has, too."""
    if reader is None:
        return ""
    reader.child("google_re2")  # deprecated and empty, unless it sets a program size, which is then reported
    pattern = reader.required("regex")
    problem = refusal(pattern)
    if problem:
        reader.error(f"{pattern!r} {problem}", "regex")
        return ""
    return pattern


def decode_string_matcher(reader: Reader) -> StringMatcher:
    """envoy.type.matcher.v3.StringMatcher."""
    kind = reader.one_of("match_pattern", "exact", "prefix", "suffix", "contains", "safe_regex")
    ignore_case: bool = reader.value("ignore_case")
    if kind == "safe_regex":
        # Envoy: "ignore_case has no effect for the safe_regex match".
        return StringMatcher("safe_regex", decode_regex(reader.child("safe_regex")))
    if kind == "exact":
        return StringMatcher("exact", reader.value("exact"), ignore_case)
    if kind == "prefix":
        return StringMatcher("prefix", reader.required("prefix"), ignore_case)
    if kind == "suffix":
        return StringMatcher("suffix", reader.required("suffix"), ignore_case)
    if kind == "contains":
        return StringMatcher("contains", reader.required("contains"), ignore_case)
    return StringMatcher("exact", "")


# RFC 9110, 5.6.2: token; a leading colon for :method, :path and :authority.
_HEADER_NAME = re.compile(r":?[!#$%&'*+.^_`|~0-9A-Za-z-]+")


_UNSEEN = frozenset(
    (":scheme", "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization")
)
"""What routing does not see: fields that end at each hop (RFC 9110 §7.6.1), and what has no place in the model."""


def decode_header_name(reader: Reader, field: str = "name") -> str:
    """The name, in lower case, of a header that is looked for in requests."""
    name = reader.required(field)
    if name and not _HEADER_NAME.fullmatch(name):
        reader.error(f"{name!r} is not the name of a header", field)
    elif name.lower() in _UNSEEN:
        reader.error(f"{name!r} is not seen by routes: it would never match", field)
    return name.lower()


def decode_header_matcher(reader: Reader) -> HeaderMatcher:
    """envoy.config.route.v3.HeaderMatcher: string_match and present_match."""
    name = decode_header_name(reader)
    invert: bool = reader.value("invert_match")
    empty: bool = reader.value("treat_missing_header_as_empty")
    kind = reader.which("header_match_specifier")
    if kind == "string_match" and (inner := reader.child("string_match")):
        return HeaderMatcher(name, decode_string_matcher(inner), invert, empty)
    if kind == "present_match":
        # present_match: false matches when the header is absent.
        return HeaderMatcher(name, None, invert == reader.value("present_match"), empty)
    return HeaderMatcher(name, None, invert, empty)


def decode_query_parameter_matcher(reader: Reader) -> QueryParameterMatcher:
    """envoy.config.route.v3.QueryParameterMatcher."""
    name = reader.required("name")
    kind = reader.which("query_parameter_match_specifier")
    if kind == "string_match" and (inner := reader.child("string_match")):
        return QueryParameterMatcher(name, decode_string_matcher(inner))
    if kind == "present_match" and not reader.value("present_match"):
        reader.unsupported("false is not supported", "present_match")
    return QueryParameterMatcher(name)


def decode_data(reader: Reader) -> tuple[bytes, str]:
    """envoy.config.core.v3.DataSource: (content, the file's name or "" when inline).

    Files are read only for a bootstrap: the control plane must not be able to read this machine's files.
    """
    kind = reader.one_of("specifier", "filename", "inline_string", "inline_bytes")
    if kind == "inline_string":
        text: str = reader.value("inline_string")
        return text.encode(), ""
    if kind == "inline_bytes":
        return reader.value("inline_bytes"), ""
    if kind == "filename":
        filename = reader.required("filename")
        if reader.context.secrets is None:
            reader.error("files are read only for a bootstrap file; send the content inline", "filename")
            return b"", ""
        try:
            return read_file(filename), filename
        except OSError as error:
            reader.error(f"cannot read {filename}: {error.strerror or error}", "filename")
            return b"", ""
    return b"", ""


def decode_ads(reader: Reader | None, parent: Reader, name: str, what: str) -> None:
    """envoy.config.core.v3.ConfigSource that says "from the one ADS stream", protocol version 3."""
    if reader is None:
        parent.error("is required", name)
        return
    # AUTO is v3 as well since Envoy dropped v2.
    reader.enum("resource_api_version", {"V3": None, "AUTO": None})
    if parent.context.secrets is not None:
        reader.error(f"{what} comes from a control plane; a bootstrap file needs it inline (static)")
        _take_all(reader)
        return
    source = reader.which("config_source_specifier")
    if source == "ads":
        reader.child("ads")
    else:
        reader.error(f"must be ads, not {source or 'empty'}")


def _take_all(reader: Reader) -> None:
    """The whole message has been reported; its fields need not be reported again."""
    for field, _ in reader.message.ListFields():
        reader.opaque(field.name)


def decode_labels(reader: Reader, name: str = "metadata") -> tuple[tuple[str, str], ...]:
    """filter_metadata["pillion"] of a Metadata field as sorted pairs; other namespaces are not for us."""
    metadata: Any = reader.opaque(name)
    found: dict[str, str] = {}
    if reader.has(name) and "pillion" in metadata.filter_metadata:
        for key, item in metadata.filter_metadata["pillion"].fields.items():
            if item.WhichOneof("kind") == "string_value":
                found[key] = item.string_value
            else:
                reader.error("must be a string", join(name, f'filter_metadata["pillion"].{key}'))
    return tuple(sorted(found.items()))
