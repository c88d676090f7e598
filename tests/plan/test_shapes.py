"""plan/shapes.py: a complete optimization profile for every input, and which input takes an image."""

import dataclasses

import pytest
from helpers import refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.model_info import ImageInput, Profile, TensorSpec
from onnx2trt.plan.parts import Shapes
from onnx2trt.plan.shapes import example_shape, image_input, image_refusal, make_profiles


def spec(shape, name: str = "x", dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, shape, dtype)


def shapes(lowest=(), opt=(), highest=(), batch: int = 1) -> Shapes:
    """Shape flags; a plain tuple of numbers is that of the unnamed input."""

    def pairs(typed):
        return (("", typed),) if typed and isinstance(typed[0], int) else tuple(typed)

    return Shapes(pairs(lowest), pairs(opt), pairs(highest), batch)


PROFILES = [  # shape of the model, flags, min, opt, max
    ((1, 3, 8, 8), shapes(), (1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8)),
    ((4, 3), shapes(), (4, 3), (4, 3), (4, 3)),
    ((4, 3), shapes(batch=4), (4, 3), (4, 3), (4, 3)),
    ((), shapes(), (), (), ()),
    ((None, 3), shapes(), (1, 3), (1, 3), (1, 3)),
    (("N", 3), shapes(batch=8), (1, 3), (8, 3), (8, 3)),
    (("N",), shapes(batch=8), (1,), (8,), (8,)),
    (("N", 3), shapes(opt=(4, 3)), (1, 3), (4, 3), (4, 3)),
    (("N", 3), shapes(opt=(4, 3), batch=16), (1, 3), (4, 3), (16, 3)),
    (("N", 3), shapes(highest=(16, 3)), (1, 3), (16, 3), (16, 3)),
    (("N", 3), shapes(lowest=(2, 3), batch=4), (2, 3), (4, 3), (4, 3)),
    (("N", 3, "h", "w"), shapes(opt=(1, 3, 64, 96)), (1, 3, 64, 96), (1, 3, 64, 96), (1, 3, 64, 96)),
    (("N", 3, "h", "w"), shapes(opt=(2, 3, 64, 96), batch=4), (1, 3, 64, 96), (2, 3, 64, 96), (4, 3, 64, 96)),
    ((1, "n"), shapes(lowest=(1, 1), opt=(1, 16), highest=(1, 64)), (1, 1), (1, 16), (1, 64)),
    ((1, "n"), shapes(highest=(1, 64)), (1, 64), (1, 64), (1, 64)),
    ((1, "n"), shapes(lowest=(1, 4)), (1, 4), (1, 4), (1, 4)),
    ((1, "n"), shapes(lowest=(1, 4), highest=(1, 9)), (1, 4), (1, 9), (1, 9)),
    (None, shapes(opt=(2, 5)), (1, 5), (2, 5), (2, 5)),
    (None, shapes(lowest=(2, 4), opt=(2, 5), highest=(3, 6)), (2, 4), (2, 5), (3, 6)),
]


@pytest.mark.parametrize(("shape", "typed", "low", "opt", "high"), PROFILES)
def test_profile(shape, typed, low, opt, high):
    assert make_profiles((spec(shape),), typed) == (Profile("x", low, opt, high),)


def test_each_input_gets_the_shapes_typed_for_it_in_the_models_order():
    inputs = (spec(("N", 3), "image:0"), spec((1, "n"), "ids"))
    typed = shapes(opt=[("ids", (1, 7)), ("image:0", (2, 3))], batch=4)
    assert make_profiles(inputs, typed) == (
        Profile("image:0", (1, 3), (2, 3), (4, 3)),
        Profile("ids", (1, 7), (1, 7), (1, 7)),
    )


def test_a_fixed_input_beside_one_with_a_free_batch_is_no_reason_to_refuse():
    inputs = (spec(("N", 3), "a"), spec((1, 3), "b"))
    assert [profile.max for profile in make_profiles(inputs, shapes(batch=8))] == [(8, 3), (1, 3)]


REFUSED = [  # shape of the model, flags, fragments of the message, of the hint
    ((1, 3, 8, 8), shapes(batch=8), ["--max-batch-size 8", "x 1x3x8x8"], "free batch"),
    ((), shapes(batch=2), ["--max-batch-size 2"], "free batch"),
    (("N", 3, "h", None), shapes(), ["'x'", "dimension 2 (h), dimension 3 (?)", "Nx3xhx?"], "--opt-shapes x:1x3x224x224"),
    (("N", "n"), shapes(), ["dimension 1 (n)"], "--opt-shapes x:1x16"),
    ((1, "n"), shapes(batch=1), ["dimension 1 (n)"], "--opt-shapes x:1x16"),
    (None, shapes(), ["'x' has no declared rank"], "--opt-shapes x:DIMS"),
    (None, shapes(highest=(1, 2)), ["'x' has no declared rank"], "--opt-shapes"),
    (("N", 3), shapes(opt=(1, 4)), ["--opt-shapes x:1x4 does not fit", "Nx3"], "repeated as they are"),
    (("N", 3), shapes(opt=(1, 3, 3)), ["--opt-shapes x:1x3x3 does not fit", "Nx3"], ""),
    (("N", 3), shapes(lowest=(1,)), ["--min-shapes x:1 does not fit", "Nx3"], ""),
    (("N", 3), shapes(highest=(4, 5)), ["--max-shapes x:4x5 does not fit", "Nx3"], ""),
    ((1, 3), shapes(opt=(2, 3)), ["--opt-shapes x:2x3 does not fit", "1x3"], ""),
    (("N", 3), shapes(opt=[("image", (1, 3))]), ["--opt-shapes names input 'image'", "'x'"], "--opt-shapes x:1x3"),
    (("N", 3), shapes(lowest=(4, 3), opt=(2, 3)), ["min 4x3, opt 2x3, max 2x3", "ascending"], "--min-shapes"),
    (("N", 3), shapes(lowest=(2, 3)), ["min 2x3, opt 1x3, max 1x3"], "--max-batch-size"),
    (("N", "n"), shapes(opt=(1, 9), highest=(1, 8)), ["opt 1x9, max 1x8"], ""),
]


@pytest.mark.parametrize(("shape", "typed", "fragments", "hint"), REFUSED)
def test_refused_shapes_are_shown_with_the_flag_to_change(shape, typed, fragments, hint):
    with refused(ExitCode.USAGE, *fragments, hint=hint):
        make_profiles((spec(shape),), typed)


def test_a_shape_without_a_name_needs_a_single_input():
    with refused(ExitCode.USAGE, "--opt-shapes names no input", "'a', 'b'", hint="--opt-shapes a:1x3"):
        make_profiles((spec((1, 3), "a"), spec((1, 3), "b")), shapes(opt=(1, 3)))


def test_max_batch_size_against_max_shapes():
    with refused(ExitCode.USAGE, "--max-batch-size 16", "8"):
        make_profiles((spec(("N", 3)),), shapes(highest=(8, 3), batch=16))


def test_one_input_named_twice_once_without_its_name():
    with refused(ExitCode.USAGE, "--opt-shapes", "twice"):
        make_profiles((spec(("N", 3)),), shapes(opt=[("", (1, 3)), ("x", (2, 3))]))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(("N", 3, "h", "w"), (1, 3, 224, 224)), ((None, None, 7), (1, 16, 7)), ((5, "n"), (5, 16)), (None, ()), ((), ())],
)
def test_example_shape(shape, expected):
    assert example_shape(spec(shape)) == expected


def image_of(shape, opt, dtype: str = "float32") -> ImageInput:
    inputs = (spec(shape, dtype=dtype),)
    return image_input(inputs, (Profile("x", opt, opt, opt),))


@pytest.mark.parametrize(
    ("shape", "opt", "dtype", "expected"),
    [
        ((1, 3, 20, 30), (1, 3, 20, 30), "float32", ImageInput("x", "NCHW", 1, 3, 20, 30, "float32")),
        (("N", 1, "h", "w"), (8, 1, 20, 30), "float16", ImageInput("x", "NCHW", 1, 1, 20, 30, "float16")),
        ((4, 20, 30, 3), (4, 20, 30, 3), "uint8", ImageInput("x", "NHWC", 4, 3, 20, 30, "uint8")),
        ((1, 20, 30, 4), (1, 20, 30, 4), "float32", ImageInput("x", "NHWC", 1, 4, 20, 30, "float32")),
        ((2, 4, 20, 30), (2, 4, 20, 30), "float32", ImageInput("x", "NCHW", 2, 4, 20, 30, "float32")),
        ((1, 3, 20, 4), (1, 3, 20, 4), "float32", ImageInput("x", "NCHW", 1, 3, 20, 4, "float32")),
        (None, (1, 3, 20, 30), "float32", ImageInput("x", "NCHW", 1, 3, 20, 30, "float32")),
    ],
)
def test_image_input(shape, opt, dtype, expected):
    assert image_of(shape, opt, dtype) == expected


@pytest.mark.parametrize(
    ("shape", "dtype", "why"),
    [
        ((1, 3), "float32", "'x' is 1x3, neither NCHW nor NHWC"),
        ((1, 2, 20, 30), "float32", "'x' is 1x2x20x30, neither NCHW nor NHWC with 1, 3 or 4 channels"),
        ((1, 3, 20, 30), "int64", "'x' is int64, neither float nor uint8"),
        ((1, 3, 20, 30), "int8", "'x' is int8, neither float nor uint8"),
        ((0, 3, 20, 30), "float32", "'x' is 0x3x20x30, which holds nothing"),
    ],
)
def test_no_image_for_this_input(shape, dtype, why):
    with refused(ExitCode.USAGE, why, hint=".npz files with one array for each input (x)"):
        image_of(shape, shape, dtype)


def test_no_image_for_two_inputs():
    inputs = (spec((1, 3, 8, 8), "a"), spec((1, 3, 8, 8), "b"))
    profiles = make_profiles(inputs, shapes())
    with refused(ExitCode.USAGE, "2 inputs", hint="(a, b)"):
        image_input(inputs, profiles)
    assert image_refusal(inputs[:1], profiles[:1]) == ""


@pytest.mark.parametrize(
    "flags, lowest",
    [
        (shapes(opt=(("x", (20, 4, 12)), ("len", (4,)))), (4,)),
        (shapes(opt=(("x", (20, 4, 12)), ("len", (4,))), lowest=(("x", (20, 2, 12)),)), (2,)),
        (shapes(opt=(("x", (20, 4, 12)), ("len", (4,))), lowest=(("len", (3,)),)), (3,)),
        (shapes(opt=(("x", (20, 1, 12)),)), (1,)),
    ],
)
def test_one_symbol_is_one_size_whichever_axis_it_stands_at(flags, lowest):
    profiles = make_profiles((spec((20, "batch", 12)), spec(("batch",), "len", "int32")), flags)
    assert profiles[1].min == lowest and profiles[1].name == "len"


def test_all_missing_shapes_are_asked_for_at_once():
    inputs = (spec((1, "seq"), "ids", "int64"), spec(("n", 3), "fixed"), spec((1, 2, "past", 16), "cache"), spec(None, "any"))
    with refused(ExitCode.USAGE, "'ids' has free", "(seq) of 1xseq", "'cache' has free", "'any' has no declared rank") as _:
        make_profiles(inputs, shapes())
    with refused(ExitCode.USAGE, "'ids'", hint="--opt-shapes ids:1x16 cache:1x2x224x16 any:DIMS"):
        make_profiles(inputs, shapes())
    with refused(ExitCode.USAGE, "'any'", hint="--opt-shapes any:DIMS"):
        make_profiles(inputs, shapes(opt=[("ids", (1, 4)), ("cache", (1, 2, 4, 16))]))


def test_the_smallest_size_may_be_zero():
    flags = shapes(lowest=(1, 2, 0, 16), opt=(1, 2, 8, 16), highest=(1, 2, 64, 16))
    assert make_profiles((spec((1, 2, "past", 16)),), flags) == (Profile("x", (1, 2, 0, 16), (1, 2, 8, 16), (1, 2, 64, 16)),)


def test_a_shape_that_follows_from_those_of_other_inputs_is_not_asked_for():
    inputs = (spec(("batch", "seq"), "ids"), spec(("batch", "seq"), "mask"), spec((2, "batch", 8), "state"))
    flags = shapes(lowest=[("ids", (1, 4))], opt=[("ids", (2, 16))], highest=[("ids", (4, 32))])
    assert make_profiles(inputs, flags) == (
        Profile("ids", (1, 4), (2, 16), (4, 32)),
        Profile("mask", (1, 4), (2, 16), (4, 32)),
        Profile("state", (2, 1, 8), (2, 2, 8), (2, 4, 8)),
    )
    assert make_profiles((spec(("batch", 3), "x"), inputs[2]), shapes(batch=4))[1] == Profile("state", (2, 1, 8), (2, 4, 8), (2, 4, 8))


@pytest.mark.parametrize("other", [("n", "?"), ("n", None), ("n", "other")])
def test_a_dimension_without_a_name_of_its_own_follows_from_nothing(other):
    with refused(ExitCode.USAGE, "'b' has free dimensions"):
        make_profiles((spec(("n", "?"), "a"), spec(other, "b")), shapes(opt=[("a", (1, 16))]))


def test_a_name_that_got_two_sizes_tells_none():
    inputs = (spec((1, "n"), "a"), spec((1, "n"), "b"), spec((1, "n"), "c"))
    with refused(ExitCode.USAGE, "'c' has free dimensions"):
        make_profiles(inputs, shapes(opt=[("a", (1, 16)), ("b", (1, 8))]))


def test_what_is_typed_for_an_input_itself_counts():
    inputs = (spec((1, "n"), "a"), spec((1, "n"), "b"))
    assert make_profiles(inputs, shapes(opt=[("a", (1, 16)), ("b", (1, 8))]))[1].opt == (1, 8)


# ---- --imgsz


def sized(size, **typed) -> Shapes:
    return dataclasses.replace(shapes(**typed), image_size=size)


@pytest.mark.parametrize(
    "shape, typed, expected",
    [
        (("n", 3, "h", "w"), {}, ((1, 3, 48, 64),) * 3),
        (("n", "h", "w", 1), {"batch": 4}, ((1, 48, 64, 1), (4, 48, 64, 1), (4, 48, 64, 1))),
        ((2, 3, 48, "w"), {}, ((2, 3, 48, 64),) * 3),
        (("n", 3, "h", "w"), {"lowest": (1, 3, 32, 32), "highest": (8, 3, 96, 96)}, ((1, 3, 32, 32), (8, 3, 48, 64), (8, 3, 96, 96))),
        (("n", 3, "h", "w"), {"opt": (2, 3, 48, 64)}, ((1, 3, 48, 64), (2, 3, 48, 64), (2, 3, 48, 64))),
        ((1, 3, 48, 64), {}, ((1, 3, 48, 64),) * 3),
    ],
)
def test_an_image_size_fills_height_and_width(shape, typed, expected):
    assert make_profiles((spec(shape),), sized((48, 64), **typed)) == (Profile("x", *expected),)


@pytest.mark.parametrize(
    "shape, typed, said",
    [
        ((1, 3, 32, 32), {}, "--imgsz 48x64, but input 'x' is 1x3x32x32"),
        (("n", 3, "h", "w"), {"opt": (1, 3, 32, 32)}, "--imgsz 48x64, but --opt-shapes x:1x3x32x32"),
        (("n", 16, "h", "w"), {}, "no input of the model looks like images"),
        (("n", "length"), {}, "no input of the model looks like images"),
    ],
)
def test_an_image_size_that_fits_nothing_is_refused(shape, typed, said):
    with refused(ExitCode.USAGE, said):
        make_profiles((spec(shape),), sized((48, 64), **typed))


def test_the_other_inputs_still_need_their_shapes():
    with refused(ExitCode.USAGE, "input 'ids' has free dimensions"):
        make_profiles((spec(("n", 3, "h", "w")), spec(("n", "length"), "ids")), sized((48, 64)))
