from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minio.crypto import encrypt as encrypt_of_the_official_client

from protocol.errors import StorageRefused
from spoke_agent.storage.admin_cipher import PBKDF2_AES, decrypt, encrypt

FRAGMENT = 16 * 1024


@pytest.mark.parametrize("size", [0, 1, FRAGMENT - 1, FRAGMENT, FRAGMENT + 1, 3 * FRAGMENT])
def test_what_was_encrypted_can_be_read_again_at_every_fragment_border(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert decrypt("secret", encrypt("secret", data[:size])) == data[:size]


@pytest.mark.parametrize("size", [1, FRAGMENT + 1])
def test_it_reads_what_the_official_client_encrypted_with_argon2(size: int) -> None:
    assert decrypt("secret", encrypt_of_the_official_client(b"x" * size, "secret")) == b"x" * size


def test_the_wrong_secret_opens_nothing_and_the_error_does_not_repeat_it() -> None:
    with pytest.raises(StorageRefused) as caught:
        decrypt("another-secret", encrypt("the-secret", b"data"))
    assert "secret" not in str(caught.value).replace("agent's key", "")


@settings(max_examples=30)
@given(st.integers(0, FRAGMENT + 100), st.integers(1, 255))
def test_a_changed_byte_anywhere_is_noticed(position: int, change: int) -> None:
    sealed = bytearray(encrypt("secret", b"d" * FRAGMENT))
    at = min(position, len(sealed) - 1)
    if at == 32 and (sealed[at] ^ change) in {0, 1}:
        return  # another cipher: Argon2 for nothing
    sealed[at] ^= change
    with pytest.raises(StorageRefused):
        decrypt("secret", bytes(sealed))


def test_a_fragment_cut_off_at_its_border_is_noticed() -> None:
    sealed = encrypt("secret", b"d" * (2 * FRAGMENT))
    with pytest.raises(StorageRefused):
        decrypt("secret", sealed[: 41 + FRAGMENT + 16])
    with pytest.raises(StorageRefused, match="cut off"):
        decrypt("secret", sealed[:50])


def test_an_unknown_cipher_is_said_to_be_unknown() -> None:
    sealed = bytearray(encrypt("secret", b"data"))
    assert sealed[32] == PBKDF2_AES
    sealed[32] = 9
    with pytest.raises(StorageRefused, match=r"does not know \(9\)"):
        decrypt("secret", bytes(sealed))
