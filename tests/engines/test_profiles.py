"""Profiles by name or by sizes; what is wrong with them is told in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from condic.engines.profiles import check_profiles, named_profiles, profile_of_shapes
from condic.errors import InputError
from condic.runtime.bundle import Bundle
from condic.runtime.engine_cache import PROFILES, Profile


def test_names_come_alone_or_in_lists_without_repetition():
    assert named_profiles("4k") == [PROFILES["4k"]]
    assert named_profiles("512,1080p,512") == [PROFILES["512"], PROFILES["1080p"]]


@pytest.mark.parametrize("names", ["720p", "", "512,", "512,720p", "1080P"])
def test_an_unknown_name_is_told_those_that_there_are(names: str):
    with pytest.raises(InputError, match=r"there is no .*; there are 512, 1080p, 4k, or give --shapes"):
        named_profiles(names)


def test_profiles_have_to_take_the_known_answers(bundle: Bundle):
    check_profiles(bundle, [*PROFILES.values(), profile_of_shapes("100x100,120x200,120x200")])
    with pytest.raises(InputError, match=r"profile 512x768\.?.* does not take 128x256, .*begin with 128x128"):
        check_profiles(bundle, [profile_of_shapes("512x768,512x768,512x768")])


def test_a_profile_for_them_begins_with_the_model_s_own_blocks(bundle: Bundle):
    graphs = tuple(
        replace(x, inputs=tuple(replace(i, stride=i.stride // 4) for i in x.inputs)) for x in bundle.manifest.graphs
    )
    fine = replace(bundle, manifest=replace(bundle.manifest, alignment=32, graphs=graphs))
    with pytest.raises(InputError, match=r"profile 1080p does not take 32x64, .*give --shapes that begin with 32x32$"):
        check_profiles(fine, [PROFILES["1080p"]])
    check_profiles(fine, [profile_of_shapes("32x32,1080x1920,1080x1920")])


def test_shapes_are_heights_by_widths():
    profile = Profile((128, 256), (512, 768), (1080, 1920))
    assert profile_of_shapes("128x256,512x768,1080x1920") == profile_of_shapes("128x256, 512x768, 1080x1920") == profile


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("128x128,512x512", "needs smallest, usual and largest size"),
        ("128x128,512x512,256x1024", "out of order, heights 128, 512 and 256 must not fall"),
        ("128x256,512x128,512x1024", "out of order, widths 256, 128 and 1024 must not fall"),
        ("128,512x512,1024x1024", "128 is no HEIGHTxWIDTH"),
        ("0x128,512x512,1024x1024", "0x128 is no HEIGHTxWIDTH with sides from 1 to 65535"),
        ("128x128,512x512,65536x65536", "65536x65536 is no HEIGHTxWIDTH"),
        ("128x128,512x-5,1024x1024", "512x-5 is no HEIGHTxWIDTH"),
    ],
)
def test_bad_shapes_are_told_what_is_wrong(text: str, problem: str):
    with pytest.raises(InputError) as error:
        profile_of_shapes(text)
    assert problem in str(error.value)
    assert text in str(error.value)
