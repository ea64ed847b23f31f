"""The same sidecar in the words of HAProxy and nginx, as near as each of them comes to it.

Neither can check a SPIFFE identity (a URI name in a certificate): both check the chain only.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.sidecar import Sidecar, Tls


def haproxy(sidecar: Sidecar) -> str:
    """haproxy.cfg. The access log goes to stdout, which its owner sends to a file: HAProxy writes no log files."""
    bind = f"bind 127.0.0.1:{sidecar.listen}" + _haproxy_leg(sidecar.downstream, sidecar.http2)
    front = ["frontend in", f"    {bind}"]
    if sidecar.role == "tcp":
        front += ["    mode tcp", "    no log", "    default_backend cluster-0"]
    else:
        front += _HAPROXY_HTTP
        if sidecar.role == "reply":
            front.append('    http-request return status 200 content-type text/plain string "ok"')
        else:
            front += [
                f"    use_backend cluster-{n} if {{ hdr(host) -i service-{n} }}" for n in range(1, sidecar.clusters)
            ]
            front.append("    default_backend cluster-0")
    backends = [] if sidecar.role == "reply" else [_haproxy_backend(sidecar, n) for n in range(sidecar.clusters)]
    return "\n".join([_HAPROXY_GLOBAL, *front, "", *backends, ""])


_HAPROXY_GLOBAL = """\
global
    nbthread 1
    maxconn 4096
    log stdout format raw local0 info
    ssl-default-bind-options no-tls-tickets
defaults
    mode http
    log global
    option http-keep-alive
    http-reuse always
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    retries 2
    retry-on conn-failure empty-response
"""
_HAPROXY_HTTP = [
    "    capture request header traceparent len 64",
    "    http-request set-header x-request-id %[uuid()] unless { req.hdr(x-request-id) -m found }",
    """    log-format '{"start":"%tr","method":"%HM","path":"%HP","status":%ST,"flags":"%ts","duration_ms":%Ta,"""
    """"upstream":"%si:%sp","traceparent":"%[capture.req.hdr(0)]"}'""",
]


def _haproxy_backend(sidecar: Sidecar, number: int) -> str:
    server = f"    server s 127.0.0.1:{sidecar.upstream}"
    if sidecar.role == "http":  # its outlier detection, which brings a server back by checks
        server += " check inter 5s observe layer7 error-limit 5 on-error mark-down"
    server += _haproxy_leg(sidecar.upstream_tls, sidecar.http2)
    lines = [f"backend cluster-{number}", "    balance leastconn", server]
    if sidecar.role == "tcp":
        lines.insert(1, "    mode tcp")
    return "\n".join(lines)


def _haproxy_leg(tls: Tls | None, http2: bool) -> str:
    if tls is None:
        return " proto h2" if http2 else ""
    alpn = "h2" if http2 else "http/1.1"
    return f" ssl crt {tls.combined} ca-file {tls.roots} verify required alpn {alpn}"


def nginx(sidecar: Sidecar, directory: Path) -> str:
    """nginx.conf; its own files go into `directory`."""
    return "\n".join(
        [_nginx_main(directory / f"{sidecar.name}.pid"), "http {", _NGINX_LOG, *_nginx_http(sidecar), "}", ""]
    )


def nginx_upstream(port: int, body: bytes, directory: Path) -> str:
    """nginx.conf of a server that answers every request with `body` (ASCII without quotes), keep-alive without end."""
    lines = [
        "http {",
        "    access_log off;",
        "    keepalive_requests 1000000000;",
        "    keepalive_timeout 600s;",
        f"    server {{ listen 127.0.0.1:{port}; location / {{ default_type text/plain;",
        f'        return 200 "{body.decode("ascii")}"; }} }}',
        "}",
    ]
    return "\n".join([_nginx_main(directory / "upstream.pid"), *lines, ""])


_NGINX_LOG = """\
    log_format line escape=json '{"start":"$time_iso8601","method":"$request_method","path":"$uri","status":$status,'
        '"duration":$request_time,"upstream":"$upstream_addr","traceparent":"$http_traceparent"}';
    map $http_x_request_id $made_request_id { default $http_x_request_id; "" $request_id; }
    keepalive_requests 1000000000;
    keepalive_timeout 600s;"""


def _nginx_main(pid_file: Path) -> str:
    # One process: a master that is killed leaves its workers behind.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return (
        f"{user}worker_processes 1;\ndaemon off;\nmaster_process off;\n"
        f"pid {pid_file};\nerror_log stderr warn;\nevents {{ worker_connections 4096; }}"
    )


def _nginx_http(sidecar: Sidecar) -> list[str]:
    down, up = sidecar.downstream, sidecar.upstream_tls
    lines = [f"    access_log {sidecar.log} line buffer=64k flush=1s;", "    client_max_body_size 0;"]
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    lines += [f"    {name}_temp_path {sidecar.log.parent}/nginx-{name};" for name in temporary]
    if sidecar.clusters > 100:
        lines.append("    server_names_hash_max_size 4096;")
    if sidecar.role == "http":
        lines += [
            f"    upstream cluster-{n} {{ least_conn; keepalive 64; keepalive_requests 1000000000; "
            f"server 127.0.0.1:{sidecar.upstream} max_fails=5 fail_timeout=30s; }}"
            for n in range(sidecar.clusters)
        ]
    tls = [] if down is None else [
        f"        ssl_certificate {down.chain}; ssl_certificate_key {down.key};",
        f"        ssl_client_certificate {down.roots}; ssl_verify_client on;",
        "        ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets off;",
    ]  # fmt: skip
    listen = f"listen 127.0.0.1:{sidecar.listen}{' ssl' if down else ''}{' http2' if sidecar.http2 else ''}"
    for number in range(sidecar.clusters):
        name = f"server_name service-{number};" if number else ""
        lines += [f"    server {{ {listen}{' default_server' if number == 0 else ''}; {name}", *tls]
        if sidecar.role == "reply":
            lines += ['        location / { default_type text/plain; return 200 "ok"; }', "    }"]
            continue
        lines += [*_nginx_location(sidecar, up, f"cluster-{number}"), "    }"]
    return lines


def _nginx_location(sidecar: Sidecar, up: Tls | None, cluster: str) -> list[str]:
    """HTTP/2 upstreams are its gRPC module's, whose directives have the names of the proxy module's."""
    scheme = f"{'grpc' if sidecar.http2 else 'http'}{'s' if up else ''}"
    lines = [
        f"        location / {{ proxy_pass {scheme}://{cluster};",
        "            proxy_set_header X-Request-Id $made_request_id;",
        "            proxy_next_upstream error timeout; proxy_next_upstream_tries 3; proxy_connect_timeout 1s;",
    ]
    if not sidecar.http2:
        lines.append('            proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;')
    if up is not None:
        lines += [
            f"            proxy_ssl_certificate {up.chain}; proxy_ssl_certificate_key {up.key};",
            f"            proxy_ssl_trusted_certificate {up.roots}; proxy_ssl_verify on; proxy_ssl_name in;",
            "            proxy_ssl_protocols TLSv1.2 TLSv1.3;",
        ]
    lines.append("        }")
    return [line.replace(" proxy_", " grpc_") for line in lines] if sidecar.http2 else lines
