"""SVIDs and the sealed identity."""

import datetime
import os
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.agent.state_dir import StateDir
from proxy.agent.svid import complete, new_request, renewal_time

ID = "spiffe://pillion.local/service/cart"
SECRET = "the-join-token"


def sign(request, name=ID, days=1):
    """A CA's answer: (chain, bundle)."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
    csr = x509.load_pem_x509_csr(request.csr_pem.encode())
    pem = serialization.Encoding.PEM

    def build(subject, public_key):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    ca = build(ca_name, ca_key.public_key()).sign(ca_key, hashes.SHA256())
    builder = build(x509.Name([]), csr.public_key())
    if name is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), True)
    leaf = builder.sign(ca_key, hashes.SHA256())
    return leaf.public_bytes(pem).decode(), ca.public_bytes(pem).decode()


def make_svid(**options):
    request = new_request(ID)
    chain, bundle = sign(request, **options)
    return complete(request, ID, chain, bundle, "session-token")


def test_the_request_has_one_uri_and_a_p256_key():
    csr = x509.load_pem_x509_csr(new_request(ID).csr_pem.encode())
    san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(san) == [x509.UniformResourceIdentifier(ID)]
    assert isinstance(csr.public_key().curve, ec.SECP256R1)
    assert csr.is_signature_valid


def test_secrets_are_not_in_reprs():
    request = new_request(ID)
    chain, bundle = sign(request)
    svid = complete(request, ID, chain, bundle, "session-token")
    for text in (repr(svid), repr(request), str(svid)):
        assert "PRIVATE" not in text
        assert "session-token" not in text


def test_an_answer_for_another_key_or_name_is_refused():
    request, other = new_request(ID), new_request(ID)
    with pytest.raises(ValueError, match="another key"):
        complete(request, ID, *sign(other), "s")
    with pytest.raises(ValueError, match="another name"):
        complete(request, ID, *sign(request, name=ID + "x"), "s")
    with pytest.raises(ValueError, match="another name"):
        complete(request, ID, *sign(request, name=None), "s")


def test_renewal_is_at_half_life_give_or_take():
    svid = make_svid()
    life = svid.expires - svid.not_before
    assert renewal_time(svid, 0) == svid.not_before + life / 2
    assert renewal_time(svid, 1) - renewal_time(svid, -1) == pytest.approx(life / 10)


def test_a_new_key_changes_the_key_id():
    assert make_svid().certificate().key_id != make_svid().certificate().key_id


def test_sealed_identity_comes_back(tmp_path):
    state, svid = StateDir(tmp_path / "a" / "b"), make_svid()
    state.save_identity(svid, SECRET)
    assert StateDir(tmp_path / "a" / "b").load_identity(SECRET, svid.not_before) == svid


def test_nothing_lies_in_clear_and_only_the_owner_reads(tmp_path):
    state, svid = StateDir(tmp_path / "s"), make_svid()
    state.save_identity(svid, SECRET)
    path = tmp_path / "s" / "identity.sealed"
    data = path.read_bytes()
    for secret in (b"PRIVATE KEY", b"session-token", b"BEGIN", SECRET.encode()):
        assert secret not in data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "s") == ["identity.sealed"]


def test_wrong_token_expiry_and_absence_give_none(tmp_path, caplog):
    state, svid = StateDir(tmp_path), make_svid()
    assert state.load_identity(SECRET, 0.0) is None
    assert caplog.messages == []  # a first start
    state.save_identity(svid, SECRET)
    assert state.load_identity("another-token", svid.not_before) is None
    assert caplog.messages == [
        f"{tmp_path}/identity.sealed cannot be opened with this token file "
        "(damaged, or sealed under another token); joining anew"
    ]
    assert "another-token" not in caplog.text
    caplog.clear()
    assert state.load_identity(SECRET, svid.expires) is None
    assert caplog.messages == [f"{tmp_path}/identity.sealed has expired; joining anew"]


def test_tampering_gives_none(tmp_path, caplog):
    state, svid = StateDir(tmp_path), make_svid()
    state.save_identity(svid, SECRET)
    path = tmp_path / "identity.sealed"
    whole = path.read_bytes()
    for position in (0, 20, 55, 70, len(whole) // 2, len(whole) - 1):
        broken = bytearray(whole)
        broken[position] ^= 1
        path.write_bytes(broken)
        assert state.load_identity(SECRET, svid.not_before) is None
    for length in (0, 10, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert state.load_identity(SECRET, svid.not_before) is None
    assert len(caplog.messages) == 10
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / ".identity.sealed.abc").write_bytes(b"half")
    (tmp_path / "another file").write_bytes(b"")
    state = StateDir(tmp_path)
    state.lock()
    assert sorted(os.listdir(tmp_path)) == ["another file", "lock"]
    state.close()


def test_one_at_a_time(tmp_path):
    first, second = StateDir(tmp_path), StateDir(tmp_path)
    first.lock()
    (tmp_path / ".identity.sealed.abc").write_bytes(b"being written by the first")
    with pytest.raises(BlockingIOError):
        second.lock()
    assert (tmp_path / ".identity.sealed.abc").exists()
    first.close()
    second.lock()
    second.close()


def test_two_seals_of_the_same_differ(tmp_path):
    state, svid = StateDir(tmp_path), make_svid()
    state.save_identity(svid, SECRET)
    first = (tmp_path / "identity.sealed").read_bytes()
    state.save_identity(svid, SECRET)
    assert (tmp_path / "identity.sealed").read_bytes() != first


def test_configuration_comes_back_and_rubbish_gives_none(tmp_path, caplog):
    state = StateDir(tmp_path)
    assert state.load_configuration() is None
    assert caplog.messages == []
    state.save_configuration({"type": {"a": b"\x00\xff"}})
    assert state.load_configuration() == {"type": {"a": "AP8="}}
    for rubbish in (b"", b"[1]", b"{", b"\xff"):
        (tmp_path / "configuration.json").write_bytes(rubbish)
        assert state.load_configuration() is None
    told = f"{tmp_path}/configuration.json cannot be read (damaged); waiting for the control plane"
    assert caplog.messages == [told] * 4
