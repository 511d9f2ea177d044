"""A sealed key opens for its client, of its request, from its node; for nobody and nothing else."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import BadMessage, BadSignature
from protocol.identity import new_key, public_bytes
from protocol.messages import SealedCredential
from protocol.sealing import (
    _SEAL_TAG,
    _SUITE,
    ClearCredential,
    ClearLink,
    Context,
    _signed,
    client_key,
    open_link,
    open_sealed,
    seal,
    seal_link,
)
from tests.protocol.parties import NODE_KEY

CLIENT = X25519PrivateKey.from_private_bytes(b"\x04" * 32)
CONTEXT = Context(7, 12, 99, client_key(CLIENT))
CLEAR = ClearCredential("AKIA", "s3cr3t", "t0k3n", 1_764_003_600, "https://lab3.example:9000", "us-east-1")
NODE = public_bytes(NODE_KEY)


@given(
    st.builds(
        ClearCredential,
        *[st.text(st.characters(exclude_categories=["Cs"]), max_size=200)] * 3,
        st.integers(0, 2**32),
        st.just("e"),
        st.just("r"),
    )
)
@settings(max_examples=30, deadline=None)
def test_what_is_sealed_comes_out_as_it_went_in_and_never_in_the_clear(clear: ClearCredential) -> None:
    sealed = seal(NODE_KEY, CONTEXT, clear)
    assert open_sealed(CLIENT, NODE, CONTEXT, sealed) == clear
    if len(clear.secret_key) > 3:
        assert clear.secret_key.encode() not in msgspec.msgpack.encode(sealed)


def test_two_seals_of_the_same_key_have_nothing_in_common() -> None:
    assert seal(NODE_KEY, CONTEXT, CLEAR).sealed[:32] != seal(NODE_KEY, CONTEXT, CLEAR).sealed[:32]


@pytest.mark.parametrize(
    "context",
    [
        Context(8, 12, 99, CONTEXT.client_key),
        Context(7, 13, 99, CONTEXT.client_key),
        Context(7, 12, 98, CONTEXT.client_key),
        Context(7, 12, 99, bytes(32)),
    ],
)
def test_it_fits_no_other_node_person_request_or_client(context: Context) -> None:
    with pytest.raises(BadSignature) as caught:
        open_sealed(CLIENT, NODE, context, seal(NODE_KEY, CONTEXT, CLEAR))
    assert caught.value.todo


def test_another_node_cannot_pass_for_the_pinned_one() -> None:
    with pytest.raises(BadSignature):
        open_sealed(CLIENT, NODE, CONTEXT, seal(new_key(b"\x09" * 32), CONTEXT, CLEAR))


def test_nobody_else_can_open_it() -> None:
    other = X25519PrivateKey.from_private_bytes(b"\x05" * 32)
    with pytest.raises(BadMessage):
        open_sealed(other, NODE, CONTEXT, seal(NODE_KEY, CONTEXT, CLEAR))


def test_its_expiry_and_content_cannot_be_changed() -> None:
    sealed = seal(NODE_KEY, CONTEXT, CLEAR)
    for changed in (
        SealedCredential(sealed.sealed, sealed.signature, sealed.expires + 1),
        SealedCredential(sealed.sealed[:-1] + bytes([sealed.sealed[-1] ^ 1]), sealed.signature, sealed.expires),
    ):
        with pytest.raises(BadSignature):
            open_sealed(CLIENT, NODE, CONTEXT, changed)


def signed_by_node(sealed: bytes, expires: int = CLEAR.expires) -> SealedCredential:
    return SealedCredential(sealed, NODE_KEY.sign(_signed(CONTEXT, sealed, expires)), expires)


def test_a_node_that_signs_nonsense_is_noticed() -> None:
    def sealing(clear: bytes) -> bytes:
        return _SUITE.encrypt(clear, CLIENT.public_key(), info=_SEAL_TAG + msgspec.msgpack.encode(CONTEXT))

    for odd in (b"", b"short", bytes(100), sealing(b"no credential"), sealing(msgspec.msgpack.encode(["a"] * 7))):
        with pytest.raises(BadMessage):
            open_sealed(CLIENT, NODE, CONTEXT, signed_by_node(odd))
    with pytest.raises(BadMessage, match="expiry"):
        open_sealed(CLIENT, NODE, CONTEXT, signed_by_node(sealing(msgspec.msgpack.encode(CLEAR)), CLEAR.expires + 5))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31)])
def test_a_client_key_that_is_none_or_of_low_order_is_refused(key: bytes) -> None:
    with pytest.raises(BadMessage):
        seal(NODE_KEY, Context(7, 12, 99, key), CLEAR)


def test_a_node_key_that_is_none_is_refused() -> None:
    with pytest.raises(BadMessage):
        open_sealed(CLIENT, b"short", CONTEXT, seal(NODE_KEY, CONTEXT, CLEAR))


def test_nothing_printed_shows_the_secret() -> None:
    for text in (repr(CLEAR), str(CLEAR), f"{CLEAR}", repr([CLEAR])):
        assert "s3cr3t" not in text
        assert "t0k3n" not in text


def test_a_sealed_link_opens_as_a_link_for_its_own_request_only_and_never_as_a_key() -> None:
    context = Context(7, 41, 99, CONTEXT.client_key)
    link = ClearLink("GET", "https://lab3.example:9000/lab/a?X-Amz-Signature=beef", 1_764_086_400)
    sealed = seal_link(NODE_KEY, context, link)
    assert open_link(CLIENT, NODE, context, sealed) == link
    assert "beef" not in repr(link)
    with pytest.raises(BadMessage, match="another client or request"):
        open_sealed(CLIENT, NODE, context, sealed)
    with pytest.raises(BadSignature):
        open_link(CLIENT, NODE, Context(7, 41, 98, CONTEXT.client_key), sealed)
