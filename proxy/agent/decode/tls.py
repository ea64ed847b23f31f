"""TLS contexts (envoy.extensions.transport_sockets.tls.v3), of listeners and of clusters."""

from __future__ import annotations

from proxy.agent.decode import types
from proxy.agent.decode.matchers import decode_ads, decode_data, decode_string_matcher
from proxy.agent.decode.reader import Reader
from proxy.agent.decode.secrets import SecretError
from proxy.config.model import DownstreamTls, SanMatcher, UpstreamTls, Validation

_ALPN = "transport_socket.typed_config.common_tls_context.alpn_protocols"


def decode_downstream_tls(reader: Reader) -> DownstreamTls | None:
    """The `transport_socket` of a filter chain; None for plaintext."""
    config = _transport_socket(reader, types.DOWNSTREAM_TLS)
    if config is None:
        return None
    require: bool = config.wrapped("require_client_certificate", False)
    common = config.child("common_tls_context")
    if common is None:
        config.error("is required", "common_tls_context")
        return None
    certificate = _certificate(common)
    if certificate is None:
        common.error("a listener needs tls_certificates or tls_certificate_sds_secret_configs")
        return None
    validation = _validation(common)
    if require and validation is None:
        # Envoy would then accept any certificate, even one that nobody signed.
        config.error("needs a validation_context with a trusted_ca", "require_client_certificate")
    return DownstreamTls(certificate, validation, require, _alpn(common))


def decode_upstream_tls(reader: Reader) -> UpstreamTls | None:
    """The `transport_socket` of a cluster; None for plaintext."""
    config = _transport_socket(reader, types.UPSTREAM_TLS)
    if config is None:
        return None
    sni = config.ascii("sni")
    if len(sni) > 255:
        config.error("is longer than 255 characters", "sni")
    common = config.child("common_tls_context")
    if common is None:
        return UpstreamTls(sni=sni)
    return UpstreamTls(_certificate(common), _validation(common), sni, _alpn(common))


def _alpn(common: Reader) -> tuple[str, ...]:
    protocols = tuple(common.value("alpn_protocols"))
    for i, protocol in enumerate(protocols):
        if not 0 < len(protocol) < 256 or not protocol.isascii():
            common.error("must be 1 to 255 ASCII characters", f"alpn_protocols[{i}]")
    return protocols


def check_alpn(reader: Reader, offered: tuple[str, ...], http2: bool, speaker: str) -> None:
    """Report protocols to agree on (RFC 7301) of which none is the one that `speaker` speaks, or one is the other HTTP.
    Nothing offered is no contradiction."""
    if http2 and offered and "h2" not in offered:
        reader.error(f"must hold h2: {speaker} speaks HTTP/2", _ALPN)
    elif not http2 and "h2" in offered:
        reader.error(f"must not hold h2: {speaker} speaks HTTP/1.1", _ALPN)


def check_upstream_alpn(reader: Reader, offered: tuple[str, ...]) -> None:
    """As check_alpn, for a cluster that speaks HTTP/2: whose connections offer h2 and nothing else."""
    check_alpn(reader, offered, True, "http2_protocol_options")
    for name in offered:
        if name not in ("h2", "http/1.1", "http/1.0"):  # which would never be chosen before it, or not be spoken
            reader.unsupported(f"{name} is not offered for HTTP/2, only h2", _ALPN)


def _transport_socket(reader: Reader, expected: str) -> Reader | None:
    socket = reader.child("transport_socket")
    if socket is None:
        return None
    socket.opaque("name")
    # Never plaintext where TLS was asked for, never a weaker check of the peer: strict from here on.
    socket.strict = True
    found = socket.any("typed_config", "transport socket", (expected,))
    return found[1] if found else None


def _certificate(common: Reader) -> str | None:
    """The name of the one certificate: an SDS secret's, or the file's that was read into the secrets."""
    inline = common.children("tls_certificates")
    by_name = common.children("tls_certificate_sds_secret_configs")
    names = [_inline_certificate(r) for r in inline] + [_sds_name(r) for r in by_name]
    if len(names) > 1:
        common.unsupported("more than one certificate is not supported")
    return names[0] if names else None


def _inline_certificate(reader: Reader) -> str:
    secrets = reader.context.secrets
    if reader.message.HasField("password"):
        reader.error("is not supported; give the key without a passphrase (openssl pkey -in KEY)", "password")
        reader.opaque("password")
    chain_reader, key_reader = reader.child("certificate_chain"), reader.child("private_key")
    if secrets is None:
        _only_sds(reader)
        return ""
    if chain_reader is None or key_reader is None:
        reader.error("needs certificate_chain and private_key")
        return ""
    before = len(reader.context.problems)
    (chain, filename), (key, _) = decode_data(chain_reader), decode_data(key_reader)
    if len(reader.context.problems) > before:
        return ""
    try:
        return secrets.add_certificate(filename or reader.path, chain, key)
    except SecretError as error:
        _report(chain_reader if error.part == "chain" else key_reader, error)
        return ""


def _validation(common: Reader) -> Validation | None:
    kind = common.which("validation_context_type")
    if kind == "validation_context" and (inline := common.child("validation_context")):
        sans = _san_matchers(inline)
        return Validation(_trusted_ca(inline), sans)
    if kind == "validation_context_sds_secret_config" and (by_name := common.child(kind)):
        return Validation(_sds_name(by_name))
    if kind == "combined_validation_context" and (combined := common.child("combined_validation_context")):
        default = combined.child("default_validation_context")
        by_name = combined.child("validation_context_sds_secret_config")
        if by_name is None:
            combined.error("is required", "validation_context_sds_secret_config")
            return None
        # Envoy merges the two; the default's trusted_ca would be replaced by the secret's, so it is refused.
        return Validation(_sds_name(by_name), _san_matchers(default) if default else ())
    return None


def _trusted_ca(reader: Reader) -> str:
    source = reader.child("trusted_ca")
    if source is None:
        reader.error("is required: without it no certificate would be verified", "trusted_ca")
        return ""
    secrets = reader.context.secrets
    if secrets is None:
        _only_sds(source)
        return ""
    before = len(reader.context.problems)
    pem, filename = decode_data(source)
    if len(reader.context.problems) > before:
        return ""
    try:
        return secrets.add_bundle(filename or source.path, pem)
    except SecretError as error:
        _report(source, error)
        return ""


def _san_matchers(reader: Reader) -> tuple[SanMatcher, ...]:
    found: list[SanMatcher] = []
    for entry in reader.children("match_typed_subject_alt_names"):
        san_type = entry.enum("san_type", {"URI": "URI", "DNS": "DNS"})
        matcher = entry.child("matcher")
        if matcher is None:
            entry.error("is required", "matcher")
        else:
            found.append(SanMatcher("URI" if san_type == "URI" else "DNS", decode_string_matcher(matcher)))
    return tuple(found)


def _sds_name(reader: Reader) -> str:
    """SdsSecretConfig: the agent itself answers "default" (its SVID) and "ROOTCA" (the trust bundle)."""
    name = reader.required("name")
    decode_ads(reader.child("sds_config"), reader, "sds_config", "an SDS secret")
    return name


def _only_sds(reader: Reader) -> None:
    for field, _ in reader.message.ListFields():
        reader.opaque(field.name)
    reader.unsupported('only SDS names ("default", "ROOTCA") are taken from a control plane')


def _report(reader: Reader, error: SecretError) -> None:
    reader.error(str(error), reader.which("specifier") or "")
