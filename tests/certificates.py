"""Certificates for tests, made by the program openssl, which comes with Debian's PostgreSQL."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from itertools import count
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_CONFIG = """\
[ca]
default_ca = only
[only]
database = {folder}/index.txt
new_certs_dir = {folder}
serial = {folder}/serial
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
"""


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path

    def served(self, clients_of: Path | None = None) -> ssl.SSLContext:
        """What a server secures its connections by.

        Args:
            clients_of: The certificate of the authority that its clients must have one of; None lets in everybody.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if clients_of is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients_of)
        return context


class Authority:
    """Certifies whatever it is asked to.

    Args:
        folder: Where all of its files are.

    Attributes:
        certificate: Its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)
        self.certificate = folder / "ca.pem"
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01\n")
        (folder / "ca.cnf").write_text(_CONFIG.format(folder=folder))
        self._openssl(
            "req",
            "-x509",
            *_KEY,
            "-days",
            "2",
            "-subj",
            "/CN=an authority of tests",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        )

    def certify(self, *hosts: str, self_signed: bool = False, years: tuple[int, int] = (2020, 2049)) -> Certificate:
        """Make a certificate.

        Args:
            *hosts: What it is for, as OpenSSL writes it: `IP:127.0.0.1`, `DNS:localhost`.
            self_signed: Whether nobody else vouches for it.
            years: From the first day of the one it is valid, until the first of the other.
        """
        name = f"{next(self._numbers)}"
        asked = ("-subj", f"/CN=test {name}", "-addext", f"subjectAltName={','.join(hosts)}", "-keyout", f"{name}.key")
        if self_signed:
            self._openssl("req", "-x509", *_KEY, "-days", "2", *asked, "-out", f"{name}.pem")
        else:
            self._openssl("req", *_KEY, *asked, "-out", f"{name}.csr")
            dates = ("-startdate", f"{years[0]}0101000000Z", "-enddate", f"{years[1]}0101000000Z")
            self._openssl("ca", "-batch", "-notext", *dates, "-in", f"{name}.csr", "-out", f"{name}.pem")
        return Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")

    def encrypt(self, key: Path) -> Path:
        """A copy of a key that only a password opens."""
        self._openssl("pkey", "-in", str(key), "-aes128", "-passout", "pass:secret", "-out", "encrypted.key")
        return self._folder / "encrypted.key"

    def _openssl(self, *arguments: str) -> None:
        own = ("-config", "ca.cnf") if arguments[0] == "ca" else ()
        done = subprocess.run(
            ["openssl", arguments[0], *own, *arguments[1:]],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
