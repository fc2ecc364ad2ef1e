"""A certificate authority for one test run: it signs what the tests need and is trusted by whoever is told to."""

import datetime
import ipaddress
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID


class Authority:
    """ca: the PEM file to trust. issue() makes pairs."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.certificate = self._sign(self.name, self.key, [], authority=True)
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, key, names, authority=False, days=30):
        now = datetime.datetime.utcnow()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, label, *names, days=30, rsa_key=False, folder=None, files=None):
        """A pair for these DNS names or addresses, its chain with the authority; days < 0 makes one that has expired.
        It is written to `folder` as the two `files`, which are called after the label otherwise."""
        key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        alternatives = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
        certificate = self._sign(subject, key, alternatives, days=days)
        names_of_files = files or (f"{label}.pem", f"{label}.key")
        cert, pem = (pathlib.Path(folder or self.folder) / name for name in names_of_files)
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM)
                         + self.certificate.public_bytes(serialization.Encoding.PEM))
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Pair(cert, pem, self.ca)

    def ocsp(self, pair, hours=24):
        """An OCSP response (DER) that says `good` of a pair's certificate until so many hours from now."""
        now = datetime.datetime.utcnow()
        certificate = x509.load_pem_x509_certificate(pair.cert.read_bytes())
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate, issuer=self.certificate, algorithm=hashes.SHA1(), cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=now - datetime.timedelta(days=2), next_update=now + datetime.timedelta(hours=hours),
            revocation_time=None, revocation_reason=None)
        response = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate).sign(self.key, hashes.SHA256())
        return response.public_bytes(serialization.Encoding.DER)


class Pair:
    """A certificate and its key, with contexts for both ends."""

    def __init__(self, cert, key, ca):
        self.cert, self.key, self.ca = cert, key, ca

    def server(self, alpn=()):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def client(self, alpn=("http/1.1",)):
        context = ssl.create_default_context(cafile=str(self.ca))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context
