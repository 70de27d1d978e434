"""The page's certificate and key: whether they can be used, and if not, which file, why, and what to do."""

from __future__ import annotations

import ssl
from typing import NoReturn

from common.settings import DashboardConfig


class _Locked(Exception):
    """The key asks for a password."""


def certificate_problem(settings: DashboardConfig) -> str | None:
    """Return why nothing can be served with the certificate and key; None if it can, or where there are none."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # By itself first: of the two together nobody says which file is bad.
        context.load_verify_locations(cert)
    except OSError as error:
        return f"{cert} cannot be used (dashboard.tls_cert): {_why(error, 'certificate')}"
    try:
        context.load_cert_chain(cert, key, _locked)
    except _Locked:
        unlock = f"openssl pkey -in {key} -out FILE"
        return f"{key} is locked with a password (dashboard.tls_key), for which nobody can be asked there: {unlock}"
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            return f"{key} (dashboard.tls_key) is not the key of the certificate {cert} (dashboard.tls_cert)"
        return f"{key} cannot be used (dashboard.tls_key): {_why(error, 'private key')}"
    return None


def _locked() -> NoReturn:
    raise _Locked


def _why(error: OSError, wanted: str) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason not in (None, "NO_CERTIFICATE_OR_CRL_FOUND"):
        return error.reason.replace("_", " ").lower()
    return f"there is no whole {wanted} in it, as PEM writes one (-----BEGIN …)"
