"""Where the store is: nothing leads to another machine in the clear."""

import pytest

from common.place import checked

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
