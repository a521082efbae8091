"""A node's identity: one key, an *identity certificate* that others trust, and the certificate of its connections.

::

    identity      self-signed, of the key, for 30 years; its SHA-256 is the node's *fingerprint*
    certificate   of the same key, issued by the identity, for a year; what TLS shows; renewed in its last third

Others are told the identity once, when they are paired; so a certificate can be renewed, or its names changed,
without telling anybody. A node may have a certificate that somebody else issued instead: then that is its identity.

Everything here is computed from its arguments; only the key comes from the machine's random source.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from idemfs.errors import PeerError

IDENTITY_DAYS = 30 * 365
CERTIFICATE_DAYS = 365
_CLOCK_DAYS = 1
"""How much the clock of another node may be behind."""
_NAME_SIZE_MAX = 64
"""What a common name holds."""


def new_key() -> bytes:
    """A private key, as PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_identity(key: bytes, name: str, now_ns: int) -> bytes:
    """The identity certificate of a key, as PEM."""
    private = _private(key)
    subject = _named(f"idemfs node {name}")
    builder = _begun(private, subject, subject, now_ns, IDENTITY_DAYS)
    usage = _usage(digital_signature=True, key_cert_sign=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return _signed(builder.add_extension(usage, critical=True), private)


def issue(key: bytes, identity: bytes, name: str, hosts: Iterable[str], now_ns: int) -> bytes:
    """A certificate for the connections of the node with this key and identity, both ways, as PEM."""
    private = _private(key)
    issuer = load(identity)
    names = [_host(host) for host in dict.fromkeys([name, *hosts]) if host]
    builder = _begun(private, _named(name), issuer.subject, now_ns, CERTIFICATE_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True, key_cert_sign=False), critical=True)
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(both, critical=False)
    return _signed(builder.add_extension(x509.SubjectAlternativeName(names), critical=False), private)


def _begun(
    private: ec.EllipticCurvePrivateKey, subject: x509.Name, issuer: x509.Name, now_ns: int, days: int
) -> x509.CertificateBuilder:
    now = _time(now_ns)
    public = private.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=_CLOCK_DAYS))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )


def _usage(*, digital_signature: bool, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, private: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    private = serialization.load_pem_private_key(key, None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not one of an elliptic curve")
    return private


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_NAME_SIZE_MAX])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.encode("idna").decode() if not host.isascii() else host)


def _time(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)


# -- looking at certificates -----------------------------------------------------------------------------


def load(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM text. Raises ``PeerError``."""
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except (ValueError, IndexError) as bad:
        raise PeerError("this is no certificate in PEM form") from bad


def to_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def to_der(pem: bytes) -> bytes:
    return load(pem).public_bytes(serialization.Encoding.DER)


def fingerprint(pem: bytes) -> str:
    """SHA-256 of the first certificate of a PEM text, as 64 hexadecimal digits. Raises ``PeerError``."""
    return load(pem).fingerprint(hashes.SHA256()).hex()


def expires_ns(pem: bytes) -> int:
    return int(load(pem).not_valid_after_utc.timestamp()) * 1_000_000_000


def should_renew(pem: bytes, now_ns: int) -> bool:
    """Whether a certificate is in the last third of its time, or, to a clock that was set, not yet valid."""
    certificate = load(pem)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = _time(now_ns)
    return now < begin or now > end - (end - begin) / 3


def hosts_of(pem: bytes) -> set[str]:
    """The names and addresses that a certificate is for."""
    return _names(load(pem))


def is_of(shown: bytes, identity: bytes, names: Iterable[str], authorities: Iterable[bytes]) -> bool:
    """Whether a certificate that TLS accepted (DER) is that of the node with this identity.

    So it is if it is the identity, or issued by it; or issued by one of ``authorities`` for one of ``names``.
    """
    certificate = x509.load_der_x509_certificate(shown)
    trusted = load(identity)
    if certificate == trusted or _is_issued_by(certificate, trusted):
        return True
    if not _names(certificate) & set(names):
        return False
    return any(
        _is_issued_by(certificate, authority)
        for pem in authorities
        for authority in x509.load_pem_x509_certificates(pem)
    )


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> set[str]:
    names = {str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return names
    names.update(others.get_values_for_type(x509.DNSName))
    return names | {str(each) for each in others.get_values_for_type(x509.IPAddress)}
