"""Secrets are masked, wherever they were given, and nothing else is."""

from __future__ import annotations

import time

import pytest

from snakepit_otel.common import secrets
from snakepit_otel.common.secrets import masked_arguments, masked_text, masked_value, names_a_secret

MASKED = {
    "a user of a URL": ("GET https://me:s3cret@host:4318/x failed", "GET https://***@host:4318/x failed"),
    "a password with an at": ("redis://:p@ss@host/0", "redis://***@host/0"),
    "a user without a scheme": ("cannot reach me:s3cret@host:4317", "cannot reach ***@host:4317"),
    "a signature": ("/b?sig=ab%2Bc&sv=1", "/b?sig=***&sv=1"),
    "a signature of Amazon's": (
        "https://b/?X-Amz-Credential=AK/2&X-Amz-Signature=ab&X-Amz-Date=3",
        "https://b/?X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Date=3",
    ),
    "a token in a query": ("x?a=1&access_token=abc#f", "x?a=1&access_token=***#f"),
    "a header": ("Authorization: Bearer abc.def", "Authorization: ***"),
    "a header of somebody's": ("x-api-key: abc", "x-api-key: ***"),
    "headers of a dictionary": ("{'authorization': 'Basic dTpw', 'a': 'b'}", "{'authorization': '***', 'a': 'b'}"),
    "a bearer": ("refused Bearer s3cr3t-token.", "refused Bearer ***"),
    "basic": ("sent Basic dXNlcjpwdw==", "sent Basic ***"),
    "an assignment": ("HF_TOKEN=abc PASSWORD='x y'", "HF_TOKEN=*** PASSWORD='*** y'"),
    "JSON": ('{"client_secret": "a b", "n": 1}', '{"client_secret": "***", "n": 1}'),
    "an option": ("tool --api-key abc --count 3", "tool --api-key *** --count 3"),
    "a token of GitHub's": ("clone ghp_" + "a1" * 18, "clone ***"),
    "a JWT": ("got eyJhbGciOiJI.eyJzdWIiOiIx.c2ln end", "got *** end"),
    "a private key": ("a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b", "a *** b"),
}
LEFT = [
    "2026-11-30 12:45:33,407 ERROR snakepit_otel.pool: worker default-2.1 (pid 17515) was killed by SIGKILL",
    "serving a/b.py:Red with 2 workers on unix:/tmp/x/authority.sock and 127.0.0.1:51893",
    "x trace_id=e83b2ca0037bae8a1a945774d76fa552 span_id=960617de8e208bdf",
    "unexpected token: x; the password: wrong; no key 'a' in state",
    "argument 'max_tokens': got 5 for tokens=7, keys=3, monkey=1",
    "bearer authentication, basic functionality",
    "mail@example.com, git@host, a@b:c",
    "http://host:4317/v1/traces?service=a",
    "KeyError: 'token'",
]


@pytest.fixture(autouse=True)
def knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without what the environment of the tests has."""
    monkeypatch.setattr(secrets, "_known", frozenset())
    monkeypatch.setattr(secrets, "_known_pattern", None)


@pytest.mark.parametrize("case", MASKED)
def test_what_looks_like_a_secret_is_masked(case: str) -> None:
    """And what is around it stays; masking it again changes nothing."""
    text, shown = MASKED[case]
    assert masked_text(text).removesuffix(".") == shown.removesuffix(".")
    assert masked_text(masked_text(text)) == masked_text(text)


@pytest.mark.parametrize("number", range(len(LEFT)))
def test_what_is_none_is_left(number: int) -> None:
    """Log lines, addresses, ids and errors are what they were."""
    assert masked_text(LEFT[number]) == LEFT[number]


def test_an_environments_secrets_are_known() -> None:
    """Values of headers, of URLs and of telling names are masked wherever they occur, and those of others are not."""
    secrets.learn(
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=blue-7%20team,authorization=Basic dXNlcjpodW50ZXIy",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://agent:letm3in-now@h/?q=qu3ry-value",
            "DATABASE": "postgres://app:db-p4ss@db/shop",
            "MY_API_KEY": "k3y-of-mine",
            "TLS_KEY": "/etc/tls/key.pem",
            "HOME": "/srv/home-1",
            "PIN_TOKEN": "on",
        }
    )
    text = "blue-7 team | user:hunter2 | hunter2 | letm3in-now | qu3ry-value | db-p4ss | k3y-of-mine"
    assert set(masked_text(text).split(" | ")) == {"***"}
    assert masked_text("/etc/tls/key.pem /srv/home-1 on") == "/etc/tls/key.pem /srv/home-1 on"


def test_values_by_their_names() -> None:
    """A telling name hides all of a value; arguments are hidden after a telling option."""
    assert masked_value("api_key", "abc") == "***"
    assert masked_value("url.full", "http://a:b@c/?token=d") == "http://***@c/?token=***"
    assert masked_value("process.command_args", ["x", "--token", "abc", "--password=q", "--token", "--x", "y"]) == (
        ("x", "--token", "***", "--password=***", "--token", "--x", "y")
    )
    assert masked_value("n", 5) == 5
    assert masked_arguments(()) == ()
    assert all(
        map(
            names_a_secret,
            ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "SIGNING_KEY", "SENTRY_DSN", "x-api-key"),
        )
    )
    assert not any(map(names_a_secret, ("MONKEY", "AUTHOR", "TOKENIZER", "MAX_TOKENS", "db.key", "key", "PATH")))


@pytest.mark.parametrize(
    "part",
    ["a:", "token", "token=", "://", "--key", " --a-key", "?", "x-key", "basic ", "?token", "cookie ", "a@"],
)
def test_masking_takes_little_time(part: str) -> None:
    """However a text repeats the beginnings of secrets."""
    text = part * (40_000 // len(part)) + "@"
    began = time.process_time()
    masked_text(text)
    assert time.process_time() - began < 1
