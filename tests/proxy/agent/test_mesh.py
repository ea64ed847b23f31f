"""A sidecar in the mesh as a process, against a real control plane. Its workers are channel_worker.py."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from pillion.client import TokenFile
from pillion.demo.processes import children
from pillion.v1 import mesh_pb2 as pb
from tests.support import plane

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "tests" / "support" / "agent_with_channel_worker.py"


def free_ports(count):
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def opened_files(pid):
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(fd.readlink())
    return found


class Place:
    """One sidecar's files and ports."""

    def __init__(self, directory, text):
        self.directory = directory
        self.outbound, self.inbound, self.admin, self.app = free_ports(4)
        self.token_file = directory / "token"
        self.token_file.write_text(text)

    def arguments(self, target, service="cart"):
        return (
            *("--service", service, "--app-port", str(self.app), "--control-plane", target),
            *("--token-file", str(self.token_file), "--instance", "c1", "--drain-time", "1s"),
            *("--outbound-port", str(self.outbound), "--inbound-port", str(self.inbound)),
            *("--admin-port", str(self.admin), "--state-dir", str(self.directory / "state")),
        )


async def start(arguments):
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(SCRIPT), "serve", *arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finished(process):
    async with asyncio.timeout(15):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def sidecar(arguments):
    process = await start(arguments)
    try:
        async with asyncio.timeout(15):
            process.ready = (await process.stdout.readline()).decode()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def admin(place, path, method="GET"):
    reader, writer = await asyncio.open_connection("127.0.0.1", place.admin)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head.split(" ")[1], body


async def prepared(mesh, tmp_path):
    document = pb.Document(source="m.yaml", yaml="kind: Service\nname: cart\n")
    await mesh.mesh.Apply(pb.ApplyRequest(documents=[document]), metadata=mesh.operator)
    answer = await mesh.mesh.CreateToken(pb.CreateTokenRequest(service="cart"), metadata=mesh.operator)
    return Place(tmp_path, answer.token_file), mesh.target


async def test_join_serve_restart_without_the_control_plane(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        place, target = await prepared(mesh, tmp_path)
        async with sidecar(place.arguments(target)) as process:
            assert process.ready.startswith(f"pillion proxy ready: inbound 0.0.0.0:{place.inbound}, outbound ")
            assert await admin(place, "/ready") == ("200", "LIVE\n")
            certificates = json.loads((await admin(place, "/certs"))[1])["certificates"]
            uri = certificates[0]["cert_chain"][0]["subject_alt_names"][0]["uri"]
            assert uri == "spiffe://pillion.local/service/cart"
            status, dump = await admin(place, "/config_dump")
            assert status == "200"
            assert "PRIVATE KEY" not in dump
            assert TokenFile.load(place.token_file).token not in dump
            assert '"version_info": ""' not in dump.split("ListenersConfigDump")[1].split("RoutesConfigDump")[0]
            process.send_signal(signal.SIGTERM)
            assert (await finished(process))[0] == 0
    # The control plane is gone; the join token is used.
    async with sidecar(place.arguments(target)) as process:
        assert process.ready.startswith("pillion proxy ready: inbound")
        assert "control_plane_connected_state 0.0" in (await admin(place, "/metrics"))[1]


async def test_a_used_token_is_one_line_and_exit_2(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        place, target = await prepared(mesh, tmp_path)
        token = TokenFile.load(place.token_file).token
        await mesh.ca.Sign(pb.SignRequest(csr_pem=plane.csr("cart"), join_token=token))
        status, out, err = await finished(await start(place.arguments(target)))
        assert (status, out) == (2, "")
        assert err.startswith("pillion proxy: the control plane refuses spiffe://pillion.local/service/cart: ")
        assert err.count("\n") == 1
        assert token not in err


@pytest.mark.parametrize("taken", [("outbound",), ("inbound",), ("admin",), ("outbound", "inbound", "admin")])
async def test_ports_in_use_are_all_named_and_the_join_token_is_not_spent(tmp_path, taken):
    async with plane.running(tmp_path / "cp") as mesh:
        place, target = await prepared(mesh, tmp_path)
        with ExitStack() as others:
            for which in taken:
                host = "0.0.0.0" if which == "inbound" else "127.0.0.1"
                others.enter_context(socket.create_server((host, getattr(place, which))))
            status, out, err = await finished(await start(place.arguments(target)))
        assert (status, out) == (2, "")
        named = "; ".join(f"--{which}-port {getattr(place, which)}: address already in use" for which in taken)
        assert err == f"pillion proxy: {named}\n"
        for which, port in zip(taken, free_ports(len(taken)), strict=True):
            setattr(place, which, port)
        async with sidecar(place.arguments(target)) as process:
            assert process.ready.startswith("pillion proxy ready: ")


async def test_a_sidecar_that_waits_for_its_control_plane_refuses_connections(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        place, _target = await prepared(mesh, tmp_path)
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    process = await start(place.arguments(nobody))
    try:
        assert "control plane not reached" in (await process.stderr.readline()).decode()
        for port in (place.outbound, place.inbound):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
    finally:
        process.send_signal(signal.SIGTERM)
        assert (await finished(process))[0] == 0


async def test_two_sidecars_cannot_share_a_state_directory(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        place, target = await prepared(mesh, tmp_path)
        async with sidecar(place.arguments(target)) as process:
            assert process.ready.startswith("pillion proxy ready: ")
            answer = await mesh.mesh.CreateToken(pb.CreateTokenRequest(service="cart"), metadata=mesh.operator)
            second = Place(tmp_path, answer.token_file)  # other ports, another token, the same --instance
            kept = (tmp_path / "state" / "identity.sealed").read_bytes()
            status, out, err = await finished(await start(second.arguments(target)))
            assert (status, out) == (2, "")
            assert err == (
                f"pillion proxy: --state-dir {tmp_path / 'state'}: in use by another sidecar; "
                "give this one another --instance (or --state-dir)\n"
            )
            assert (tmp_path / "state" / "identity.sealed").read_bytes() == kept
            assert await admin(place, "/ready") == ("200", "LIVE\n")
        async with sidecar(second.arguments(target)) as process:  # the first was killed; its token was not spent
            assert process.ready.startswith("pillion proxy ready: ")


async def test_a_killed_sidecar_starts_again_at_once(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        place, target = await prepared(mesh, tmp_path)
        for _ in range(3):
            async with sidecar(place.arguments(target)) as process:
                assert process.ready.startswith("pillion proxy ready: ")
                (worker,) = children(process.pid)
                assert tmp_path / "state" / "lock" in opened_files(process.pid)
                assert tmp_path / "state" / "lock" not in opened_files(worker)
                os.kill(process.pid, signal.SIGKILL)


async def test_a_cached_configuration_for_other_ports_is_not_used(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        place, target = await prepared(mesh, tmp_path)
        async with sidecar(place.arguments(target)) as process:
            assert process.ready.startswith("pillion proxy ready: ")
            process.send_signal(signal.SIGTERM)
            assert (await finished(process))[0] == 0
        before, place.outbound = place.outbound, free_ports(1)[0]
        with socket.create_server(("127.0.0.1", before)):  # someone else has it now
            async with sidecar(place.arguments(target)) as process:
                assert f"outbound 127.0.0.1:{place.outbound}," in process.ready


async def test_another_control_plane_ends_a_first_start_and_no_sidecar_that_serves(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh, plane.running(tmp_path / "cp-2") as other:
        place, target = await prepared(mesh, tmp_path)
        sentence = f"{other.target} is another control plane than the one that {place.token_file} is of"
        status, out, err = await finished(await start(place.arguments(other.target)))
        assert (status, out) == (2, "")
        assert err == f"pillion proxy: {sentence}; make a token there with: pillion token cart\n"
        async with sidecar(place.arguments(target)) as process:
            assert process.ready.startswith("pillion proxy ready: ")
            await admin(place, "/quitquitquit", "POST")
            assert (await finished(process))[0] == 0
        async with sidecar(place.arguments(other.target)) as process:
            assert process.ready.startswith("pillion proxy ready: ")
            async with asyncio.timeout(10):
                lines = b""
                while f"xds stream lost: {sentence}; serving the last good".encode() not in lines:
                    lines += await process.stderr.readline()
            assert b"CERTIFICATE_VERIFY_FAILED" not in lines
            assert await admin(place, "/ready") == ("200", "LIVE\n")
            # Its identity does not open, its configuration does: it waits, too.
            place.token_file.write_text(
                (await mesh.mesh.CreateToken(pb.CreateTokenRequest(service="cart"), metadata=mesh.operator)).token_file
            )
            await admin(place, "/quitquitquit", "POST")
            assert (await finished(process))[0] == 0
        process = await start(place.arguments(other.target))
        async with asyncio.timeout(10):
            lines = b""
            while f"control plane not reached: {sentence}".encode() not in lines:
                lines += await process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert (await finished(process))[0] == 0


async def test_a_state_directory_full_of_rubbish_is_an_empty_one_and_said(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        place, target = await prepared(mesh, tmp_path)
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "identity.sealed").write_bytes(b"pillion-identity-1\n" + bytes(200))
        (tmp_path / "state" / "configuration.json").write_text("[" * 100_000)
        async with sidecar(place.arguments(target)) as process:
            assert process.ready.startswith("pillion proxy ready: ")
            process.send_signal(signal.SIGTERM)
            err = (await finished(process))[2]
            assert f"WARN  agent  {tmp_path}/state/identity.sealed cannot be opened with this token file" in err
            assert f"WARN  agent  {tmp_path}/state/configuration.json cannot be read (damaged)" in err


async def test_draining_by_the_admin_port_leaves_the_registry(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        place, target = await prepared(mesh, tmp_path)

        async def instances():
            return (await mesh.mesh.Status(pb.StatusRequest(), metadata=mesh.operator)).instances

        app = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", place.app)
        async with app, sidecar(place.arguments(target)), asyncio.timeout(10):
            while not await instances():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert await admin(place, "/drain_listeners", "POST") == ("200", "OK\n")
            while await instances():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert await admin(place, "/ready") == ("503", "DRAINING\n")


async def test_sigterm_at_any_moment_of_the_start_is_exit_0(tmp_path):
    async with plane.running(tmp_path / "cp") as mesh:
        place, target = await prepared(mesh, tmp_path)
        for round_ in range(3):
            process = await start(place.arguments(target))
            # The admin port is bound after the signal handlers are in place and before everything else.
            async with asyncio.timeout(10):
                while True:
                    try:
                        _reader, writer = await asyncio.open_connection("127.0.0.1", place.admin)
                        break
                    except OSError:
                        await asyncio.sleep(0.005)
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(0.15 * round_)
            process.send_signal(signal.SIGTERM)
            assert (await finished(process))[0] == 0
