import ssl

from sidecar.config import PairSettings
from sidecar.tls import handshake_failure

PAIR = PairSettings(certificate_file="/our.crt", key_file="/our.key")


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def test_a_server_that_is_not_believed_names_the_authorities() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"
    said = handshake_failure(error, hung_up=False, ca_file="/ca.crt", pair=None) or ""
    assert "unable to get local issuer certificate" in said
    assert "/ca.crt" in said
    assert "no ca_file is given" in (handshake_failure(error, hung_up=False, ca_file=None, pair=None) or "")


def test_a_refused_certificate_of_ours_is_named_also_where_the_alert_is_lost() -> None:
    outer = OSError("inside")
    outer.__cause__ = alert("TLSV1_ALERT_UNKNOWN_CA")
    said = handshake_failure(outer, hung_up=False, ca_file=None, pair=PAIR) or ""
    assert said.startswith("tlsv1 alert unknown ca: ")
    assert "/our.crt" in said
    assert "no certificate is given" in (handshake_failure(OSError(), hung_up=True, ca_file=None, pair=None) or "")


def test_other_failures_are_not_about_certificates() -> None:
    assert handshake_failure(OSError("connection refused"), hung_up=False, ca_file=None, pair=PAIR) is None
    assert handshake_failure(alert("WRONG_VERSION_NUMBER"), hung_up=False, ca_file=None, pair=PAIR) is None
