"""Where the store is: nothing leads to another machine in the clear."""

import pytest

from common.place import checked, shown

LOCAL = "postgresql://mien@127.0.0.1:5432/ward"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://mien@db.ward/mien",
        "postgresql:///mien?host=db.ward",
        "postgresql:///mien?hostaddr=10.0.0.7",
        "postgresql:///mien?service=ward",
        f"{LOCAL}?servicefile=/etc/pg",
    ],
)
def test_an_address_that_may_lead_away_unencrypted_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"sent there in the clear|says elsewhere"):
        checked(url)


@pytest.mark.parametrize("variable", ["PGHOST", "PGHOSTADDR", "PGSERVICE"])
def test_so_is_one_that_leaves_the_machine_to_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "db.ward")
    with pytest.raises(ValueError, match=r"sent there in the clear|says elsewhere"):
        checked("postgresql:///mien")
    if variable != "PGSERVICE":
        assert checked(LOCAL) == LOCAL


def test_this_machine_and_encryption_are_fine() -> None:
    for url in (LOCAL, "postgresql:///mien", "postgresql://mien@db.ward/mien?sslmode=verify-full&sslrootcert=ca.pem"):
        assert checked(url) == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "postgresql://mien:secret@db.ward:5433/mien?sslmode=verify-full&sslrootcert=/etc/ssl/a%20b.pem",
            "postgresql://mien@db.ward:5433/mien?sslmode=verify-full&sslrootcert=/etc/ssl/a%20b.pem",
        ),
        (
            "postgresql://db.ward/mien?password=secret&sslmode=require&%70assword=secret&sslpassword=secret",
            "postgresql://db.ward/mien?sslmode=require",
        ),
        ("postgresql:///mien?host=/run/postgresql", "postgresql:///mien?host=/run/postgresql"),
        (f"{LOCAL}?password=secret", LOCAL),
    ],
)
def test_an_address_is_shown_without_its_password_and_can_be_used_as_it_is_shown(url: str, told: str) -> None:
    assert checked(shown(checked(url))) == told
