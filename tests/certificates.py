"""
Certificates for tests: a CA, and server certificates of it that are right, or wrong in one way.

Made relative to the host's clock, which is the one that MicroPython's unix port compares with.
"""

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


class Authority:
    """A CA of its own. folder: where its files go; pem: Path of its certificate."""

    def __init__(self, folder: Path, name: str = "Test CA"):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        certificate = _certificate(self._name, self._key, self._name, self._key, 0, 9, ca=True)
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        self.pem = folder / "ca.pem"
        self.pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str = "server",
        host: str = "localhost",
        begins: int = 0,
        ends: int = 9,
        itself: bool = False,
    ) -> ssl.SSLContext:
        """
        What a server needs. host: whom it names; begins, ends: days from now; itself: signed by
        its own key, not by this CA.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(host)
        issuer, signer = (subject, key) if itself else (self._name, self._key)
        certificate = _certificate(subject, key, issuer, signer, begins, ends, host=host)
        path = self._folder / f"{name}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject, key, issuer, signer, begins, ends, ca=False, host=None):
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * _DAY - _DAY / 24)
        .not_valid_after(now + ends * _DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if host:
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())
