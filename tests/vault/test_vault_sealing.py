"""The vault's cryptography, keys and shares."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from ppfr_ops.errors import UserError
from ppfr_ops.vault import FileKey, WrongKey, load_key, shares
from ppfr_ops.vault.keys import read_master, write_new
from ppfr_ops.vault.sealing import (
    Place,
    Refused,
    Sealed,
    _expand,
    bucket,
    pad,
    picture_digest,
    seal,
    unit_key,
    unpad,
    unseal,
    unwrap,
    wrap,
)

PLACE = Place("release", "u000000-000001", b"p" * 32)


@given(st.binary(max_size=5000))
def test_what_is_padded_comes_back(data: bytes) -> None:
    assert unpad(pad(data)) == data


@given(st.integers(1, 2**40))
def test_a_bucket_holds_it_adds_an_eighth_at_most_and_there_are_few(length: int) -> None:
    size = bucket(length)
    assert size >= length and size <= max(1024, length * 9 / 8)
    assert bucket(size) == size
    # eight an octave: three leading bits after the first decide
    assert (
        size == 1024
        or size >> max(0, size.bit_length() - 4) << max(0, size.bit_length() - 4) == size
    )


def test_it_opens_where_and_with_what_it_was_sealed_and_nowhere_else() -> None:
    sealed, key = seal(b"original", PLACE)
    assert unseal(sealed, key, PLACE) == b"original"
    others = [
        replace(PLACE, release="releas"),
        replace(PLACE, record="u000000-000002"),
        replace(PLACE, picture=b"q" * 32),
        # what stands between two parts must not be able to wander from one to the other
        Place("releaseu", "000000-000001", b"p" * 32),
    ]
    for place in others:
        with pytest.raises(Refused):
            unseal(sealed, key, place)
    with pytest.raises(Refused):
        unseal(sealed, os.urandom(32), PLACE)


def test_every_single_bit_counts() -> None:
    sealed, key = seal(b"x" * 100, PLACE)
    under = os.urandom(32)
    wrapped = wrap(key, under, PLACE)
    for name in ("nonce", "commitment", "text"):
        value = getattr(sealed, name)
        for position in {0, len(value) // 2, len(value) - 1}:
            broken = bytearray(value)
            broken[position] ^= 1
            with pytest.raises(Refused):
                unseal(replace(sealed, **{name: bytes(broken)}), key, PLACE)
    for name in ("nonce", "text"):
        broken = bytearray(getattr(wrapped, name))
        broken[-1] ^= 128
        with pytest.raises(Refused):
            unwrap(replace(wrapped, **{name: bytes(broken)}), under, PLACE)
    with pytest.raises(Refused):
        unseal(replace(sealed, text=sealed.text[:-1]), key, PLACE)


def test_a_ciphertext_is_bound_to_its_key() -> None:
    """GCM alone would let whoever writes the vault make one ciphertext that opens under two keys;
    here a tag that is right under another key does not help, for the commitment is not."""
    sealed, _ = seal(b"original", PLACE)
    other = os.urandom(32)
    nonce = sealed.nonce
    text = AESGCM(_expand(other, b"encrypt")).encrypt(nonce, pad(b"forged"), PLACE.bound(b"seal"))
    with pytest.raises(Refused):
        unseal(Sealed(nonce, sealed.commitment, text), other, PLACE)


def test_nothing_is_encrypted_twice_alike() -> None:
    under = os.urandom(32)
    made = [seal(b"same", PLACE) for _ in range(50)]
    wrapped = [wrap(key, under, PLACE) for _, key in made]
    for values in (
        [s.nonce for s, _ in made] + [w.nonce for w in wrapped],
        [s.text for s, _ in made],
        [s.commitment for s, _ in made],
        [key for _, key in made],
    ):
        assert len(set(values)) == len(values)


def test_a_wrapped_key_opens_under_its_units_key_alone() -> None:
    vault_key, salt, key = os.urandom(32), os.urandom(32), os.urandom(32)
    under = unit_key(vault_key, salt, "u000000")
    wrapped = wrap(key, under, PLACE)
    assert unwrap(wrapped, under, PLACE) == key
    for other in (
        unit_key(vault_key, salt, "u000001"),
        unit_key(vault_key, os.urandom(32), "u000000"),
        unit_key(os.urandom(32), salt, "u000000"),
    ):
        with pytest.raises(Refused):
            unwrap(wrapped, other, PLACE)


def test_the_digest_of_several_pictures_is_of_all_in_any_order() -> None:
    one, two = picture_digest([b"a", b"b"]), picture_digest([b"b", b"a"])
    assert one == two and len({one, picture_digest([b"a"]), picture_digest([b"ab"])}) == 3
    with pytest.raises(ValueError):
        picture_digest([])


# -- keys --------------------------------------------------------------------------------------


def test_a_master_is_read_as_openssl_writes_it(tmp_path: Path) -> None:
    master = os.urandom(32)
    (tmp_path / "hex").write_text(master.hex() + "\n")
    (tmp_path / "raw").write_bytes(master)
    for name in ("hex", "raw"):
        (tmp_path / name).chmod(0o600)
    assert read_master(str(tmp_path / "hex")) == read_master(str(tmp_path / "raw")) == master


@pytest.mark.parametrize("content", [b"", b"short", b"z" * 64, b"00" * 31, b"00" * 33])
def test_anything_else_is_no_master(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(WrongKey) as error:
        read_master(str(tmp_path / "key"))
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_master(str(tmp_path / "none"))
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(UserError, match="open to others"):
        read_master(str(tmp_path / "key"))


def test_a_key_is_written_once_for_its_owner_alone(tmp_path: Path) -> None:
    write_new(str(tmp_path / "key"), "00" * 32)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(WrongKey, match="already"):
        write_new(str(tmp_path / "key"), "11" * 32)


def test_a_key_never_shows() -> None:
    master = os.urandom(32)
    assert master.hex() not in repr(FileKey(master))


class Service:
    """A key service of somebody's own."""

    def derive(self, salt: bytes, purpose: bytes) -> bytes:
        return FileKey(b"k" * 32).derive(salt, purpose)


def test_a_key_service_is_found_by_name() -> None:
    found = load_key(f"{__name__}:Service")
    assert found.derive(b"s", b"p") == Service().derive(b"s", b"p")
    with pytest.raises(WrongKey, match="MODULE:NAME"):
        load_key("no_such_module:Service")


# -- shares ------------------------------------------------------------------------------------


def test_any_three_of_five_put_the_master_together_and_two_do_not() -> None:
    master = os.urandom(32)
    made = shares.split(master, 3, 5)
    for chosen in itertools.combinations(made, 3):
        assert shares.join([shares.parse(str(share)) for share in chosen]) == master
    assert shares.join(made) == master
    with pytest.raises(WrongKey, match="2 shares are too few; needed: 3"):
        shares.join(made[:2])
    with pytest.raises(WrongKey, match="too few"):
        shares.join([made[0], made[0], made[0]])
    assert not any(master.hex() in str(share) for share in made)


def test_shares_that_do_not_belong_together_are_refused() -> None:
    master = os.urandom(32)
    one, two = shares.split(master, 2, 3), shares.split(master, 2, 3)
    with pytest.raises(WrongKey, match="different splittings"):
        shares.join([one[0], two[1]])
    changed = replace(one[0], share="00" + one[0].share[2:])
    with pytest.raises(WrongKey, match="changed"):
        shares.join([changed, one[1]])
    for text in ("", "{}", "[]", str(one[0]).replace('"share": "', '"share": "zz')):
        with pytest.raises(WrongKey, match="no share"):
            shares.parse(text)


@pytest.mark.parametrize(("needed", "of"), [(1, 3), (4, 3), (2, 256)])
def test_numbers_that_make_no_sense_are_refused(needed: int, of: int) -> None:
    with pytest.raises(WrongKey):
        shares.split(os.urandom(32), needed, of)


@pytest.mark.parametrize("length", [0, 1, 250, 5_000, 70_001])
def test_what_is_sealed_tells_the_bucket_of_a_length_and_no_more(length: int) -> None:
    padded = pad(b"x" * length)
    assert len(padded) == bucket(len(padded)) >= length + 4
    sealed, _ = seal(b"x" * length, PLACE)
    assert len(sealed.text) == len(padded) + 16


def test_a_padding_that_is_not_zeros_is_refused() -> None:
    padded = bytearray(pad(b"abc"))
    padded[-1] = 1
    with pytest.raises(Refused):
        unpad(bytes(padded))
