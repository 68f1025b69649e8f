from pathlib import Path

import pytest

from gateway.core.policy import Networks
from gateway.settings.network import shortest
from tests.settings.test_load import read


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("2001:0db8::/32", "2001:db8::/32"),
    ],
)
def test_a_range_of_ipv4_inside_ipv6_is_one_of_ipv4(written: str, meant: str) -> None:
    assert shortest(written) == meant


def test_keys_tenants_and_policies_take_it_so(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """
        [[keys]]
        name = "a"
        key = "env:SECRET"
        networks = ["::ffff:10.0.0.0/104"]
        [tenants.acme]
        networks = ["::ffff:10.0.0.0/104"]
        [[policies]]
        name = "p"
        when = { client = "!::ffff:10.0.0.0/104" }
        deny = "no"
        """,
    )
    assert settings.keys[0].networks == settings.tenants["acme"].networks == ("10.0.0.0/8",)
    assert dict(settings.policies[0].when.tests)["client"] == Networks(but=("10.0.0.0/8",))
