"""The run's own certificates: who has them may talk to its replay server from another host.

    R/tls/ca.pem                     what both sides check the other's certificate against
    R/tls/server.pem client.pem      certificate and key of each side

Made once by init. The authority's key is never written: nobody can sign another certificate.
"""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path
from typing import Any

SERVER_NAME = "replay-server.sactory"  # hosts are not known when the certificates are made
_CLIENT_NAME = "client.sactory"
_VALID = datetime.timedelta(days=3650)
_CLOCK_SKEW = datetime.timedelta(days=1)


def make_certificates(directory: Path) -> None:
    """Writes the run's certificates; only their owner can read them."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    directory.mkdir(mode=0o700)
    authority = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("Sactory run", authority, authority)
    _write(directory / "ca.pem", _pem(root))
    for name, host, usage in (
        ("server", SERVER_NAME, ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", _CLIENT_NAME, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(host, key, authority, usage, root)
        _write(directory / f"{name}.pem", _pem(certificate) + _key_pem(key))


def _certificate(name: str, key: Any, signer: Any, usage: Any = None, root: Any = None) -> Any:
    """A certificate for `key`; without a `root` it is a new authority's own."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(root.subject if root else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=root is None, path_length=None), critical=True)
    )
    if root is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
    return builder.sign(signer, hashes.SHA256())


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        f.write(data)


def server_context(directory: Path) -> ssl.SSLContext:
    """What the server's end of a connection demands: a certificate of this run."""
    return _context(ssl.PROTOCOL_TLS_SERVER, directory, "server")


def client_context(directory: Path) -> ssl.SSLContext:
    """What a client's end demands: this run's server."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, directory, "client")


def _context(protocol: Any, directory: Path, side: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(directory / "ca.pem")
    context.load_cert_chain(directory / f"{side}.pem")
    return context
