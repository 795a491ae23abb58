"""Keys and certificates for tests."""

from __future__ import annotations

import base64
import binascii
import datetime
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID


def seed(path: Path) -> str:
    """Write the seed of a new user to a file; gives its public key."""
    raw = os.urandom(32)
    public = ed25519.Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    path.write_text(_text(bytes([18 << 3 | 20 << 3 >> 5, (20 << 3 & 31) << 3]) + raw) + "\n")
    path.chmod(0o600)
    return _text(bytes([20 << 3]) + public)


def _text(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


@dataclass
class Certificates:
    """Files: an authority, and a certificate of 127.0.0.1 and nats.example with its key."""

    ca: Path
    cert: Path
    key: Path

    def config(self) -> str:
        return f'tls {{ cert_file: "{self.cert}", key_file: "{self.key}" }}'


def certificates(place: Path, days: int = 2) -> Certificates:
    """New ones that are valid for so many days from yesterday on: 0 is expired."""
    import ipaddress

    place.mkdir(exist_ok=True)
    begins = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("test authority", "test server"))

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey, lasts: int) -> x509.CertificateBuilder:
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(public)
                .serial_number(x509.random_serial_number()).not_valid_before(begins)
                .not_valid_after(begins + datetime.timedelta(days=lasts, seconds=1)))

    authority = builder(ca_name, ca_key.public_key(), 30).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(
        x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True).sign(ca_key, hashes.SHA256())
    server = builder(name, key.public_key(), days).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("nats.example")]), critical=False).sign(
        ca_key, hashes.SHA256())
    made = Certificates(place / "ca.pem", place / "cert.pem", place / "key.pem")
    made.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.cert.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                           serialization.NoEncryption()))
    return made
