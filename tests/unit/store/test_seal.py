from __future__ import annotations

import pytest

from tunesmith.store.seal import SealBroken, seal, unseal

PEPPER = b"p" * 32


def test_a_sealed_secret_opens_for_its_purpose_only() -> None:
    sealed = seal(PEPPER, "key of a", "s3cret")
    assert "s3cret" not in sealed
    assert sealed != seal(PEPPER, "key of a", "s3cret")
    assert unseal(PEPPER, "key of a", sealed) == "s3cret"
    for pepper, purpose in ((PEPPER, "key of b"), (b"q" * 32, "key of a")):
        with pytest.raises(SealBroken):
            unseal(pepper, purpose, sealed)
