"""The URL of the shared store: each password that can be written arrives as it is."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from gateway.settings.kinds import Wrong
from gateway.settings.shared import store_url

ODD = "p@ss:w/o?r#d%+&;=[x]\t é"


@pytest.mark.parametrize("password", [quote(ODD, safe=""), quote(ODD, safe="+:;=")])
def test_a_password_with_every_odd_character_arrives_as_it_is(password: str) -> None:
    assert store_url(f"rediss://gateway:{password}@redis.internal:6379/0").password == ODD
    found = store_url(f"redis+sentinel://:{password}@one,two/mymaster?sentinel_password={password}")
    assert (found.password, found.sentinel_password) == (ODD, ODD)


@pytest.mark.parametrize(
    "text", ["redis://u:pass\tword@h/0", "redis://u:pass\nword@h/0", "redis://u:p[w@h/0"]
)
def test_a_password_that_would_not_arrive_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(Wrong, match="in a password") as refused:
        store_url(text)
    assert "word" not in str(refused.value).replace("password", "") and "p[w" not in str(refused.value)
