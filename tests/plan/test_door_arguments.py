"""plan/door_arguments.py: the doors take the whole job's flags as they are, and make the same plan of them."""

import contextlib
import dataclasses
import shlex

import pytest
from helpers import LIBRARIES, parse, typing

from onnx2trt.plan.arguments import build_parser
from onnx2trt.plan.capabilities import NO_LIBRARY
from onnx2trt.plan.door_arguments import DOORS, build_door_parser, image_beside
from onnx2trt.plan.parser import COMMAND, PROGRAM
from onnx2trt.plan.plan import Route, make_plan
from onnx2trt.plan.rules import flag_problem

NEEDED = {  # what each door has to be given, with --onnx
    "calibrate": ["--onnx", "model.onnx", "--calibration-dir", "d", "--calibration-cache", "c"],
    "preprocess": ["i.png", "--onnx", "model.onnx"],
    "validate": ["engine", "--onnx", "model.onnx"],
}
WHOLE = {action.dest: action for action in build_parser()._actions if action.dest != "help"}
OTHER_HELP = {
    ("calibrate", "calibration_cache"),
    ("calibrate", "no_validate"),
    ("preprocess", "output"),
    ("validate", "onnx"),
    ("validate", "backend"),
}


def parsed(door, *words):
    return build_door_parser(door).parse_args([*NEEDED[door], *words])


def actions(door):
    """The flags of a door."""
    return [action for action in build_door_parser(door)._actions if action.option_strings and action.dest != "help"]


FLAGS = [(door, action) for door in DOORS for action in actions(door)]


@pytest.mark.parametrize("door, action", FLAGS, ids=[f"{door} {action.dest}" for door, action in FLAGS])
def test_a_flag_is_that_of_the_whole_job(door, action):
    whole = WHOLE[action.dest]
    for part in ("option_strings", "nargs", "const", "default", "type", "choices"):
        assert getattr(action, part) == getattr(whole, part), part
    assert (action.help != whole.help) is ((door, action.dest) in OTHER_HELP)


@pytest.mark.parametrize("door", DOORS)
def test_what_a_door_does_not_take_is_as_by_default(door):
    args, whole = parsed(door), parse()
    own = {action.dest for action in build_door_parser(door)._actions} | {"door", "named", "onnx"}
    fixed = {"precision"} if door == "calibrate" else set()
    assert {dest for dest, value in vars(whole).items() if vars(args)[dest] != value} <= own | fixed
    assert args.door == door and vars(args).keys() == vars(whole).keys()


def test_the_help_of_a_door_does_not_change_the_whole_job():
    build_door_parser("calibrate")
    assert WHOLE["onnx"].required is False and build_parser().parse_args(["--inspect", "e"]).onnx is None


@pytest.mark.parametrize("door", DOORS)
def test_the_program_is_called_as_it_was_started(door, capsys):
    with pytest.raises(SystemExit):
        build_door_parser(door, f"{door}.py").parse_args(["--wrong"])
    assert capsys.readouterr().err.startswith(f"usage: {door}.py ")
    whole = build_door_parser(door)
    assert whole.format_usage().startswith(f"usage: {PROGRAM} {door} ") and f"  {shlex.join(COMMAND)} {door} " in whole.epilog
    assert f"python {door}.py" in build_door_parser(door, f"{door}.py").epilog


# ---- the plan


def without(plan):
    """The plan but for what only a library or a door decides."""
    return dataclasses.replace(
        plan, door=None, backend=None, executes_here=False, effects=(), typed=(), variants=(), outputs=None, validation=None
    )


@pytest.mark.parametrize("action", actions("calibrate"), ids=lambda action: action.dest)
def test_calibration_is_planned_as_the_whole_job_plans_it_for_a_typed_network(action):
    words = [] if action.required else typing(action)
    whole = parse("--precision", "int8", *NEEDED["calibrate"][2:], *words)
    if flag_problem(whole):
        pytest.skip("goes with other flags only")
    plan, expected = make_plan(parsed("calibrate", *words), NO_LIBRARY), make_plan(whole, LIBRARIES["rtx"])
    assert without(plan) == without(expected)
    assert dataclasses.replace(plan.validation, engine=None) == expected.validation


def test_without_a_library_nothing_is_executed_and_no_engine_is_named():
    for door in DOORS:
        plan = make_plan(parsed(door), NO_LIBRARY)
        assert plan.backend is None and plan.route is Route.STRONG and not plan.executes_here and plan.effects == ()
        assert plan.outputs.engine is plan.outputs.side_file is None and plan.build.timing_cache is None
    assert make_plan(parsed("validate"), NO_LIBRARY).validation.engine == "engine"
    assert make_plan(parsed("validate", "--require-execution"), NO_LIBRARY).validation.require_execution


def test_the_array_of_preprocess_is_no_engine():
    outputs = make_plan(parsed("preprocess", "-o", "x.npy"), NO_LIBRARY).outputs
    assert outputs.array == "x.npy" and outputs.engine is None
    assert make_plan(parse("-o", "x.engine"), LIBRARIES["rtx"]).outputs.array is None


# ---- flags that are wrong by themselves


def problem(door, *words):
    with contextlib.suppress(SystemExit):
        return flag_problem(parsed(door, *words))


@pytest.mark.parametrize(
    "door, words, expected",
    [
        ("calibrate", ("--calibration-cache", "model.onnx"), "--onnx and --calibration-cache name the same file: model.onnx"),
        ("calibrate", ("--json", "c.fit.npz"), "--calibration-cache's fit file and --json name the same file: c.fit.npz"),
        ("calibrate", ("--disable-strict-types", "--layer-precisions", "a:fp32"), "--disable-strict-types keeps no layer"),
        ("preprocess", ("-o", "x.png"), "--output must end with .npy or .npz: got x.png"),
        ("preprocess", ("-o", "i.npy"), "IMAGE and --output's image name the same file: i.png"),
        ("preprocess", ("-o", "x.npy", "--json", "x.png"), "--json and --output's image name the same file: x.png"),
        ("preprocess", ("--mean", "1", "2"), "--mean takes one number"),
        ("validate", ("--onnx", "engine"), "CANDIDATE and --onnx name the same file: engine"),
        ("validate", ("--report", "engine"), "CANDIDATE and --report name the same file: engine"),
        ("validate", ("--json", ""), "--json is empty"),
        ("validate", ("--min-shapes", "x:2", "--max-shapes", "x:1"), "is not within --max-shapes"),
    ],
)
def test_a_problem_is_named_by_what_the_user_has_typed(door, words, expected):
    assert expected in problem(door, *words)


@pytest.mark.parametrize("door", DOORS)
def test_what_is_needed_is_enough(door):
    assert problem(door) == "" and problem(door, "--json", "-", "-q") == ""


def test_files_that_only_an_engine_would_have_are_free():
    assert problem("calibrate", "--calibration-cache", "model.engine") == ""
    assert problem("validate", "--json", "model.engine.json") == ""


def test_the_image_stands_beside_the_array():
    assert image_beside("a.b/x.npy") == "a.b/x.png" and image_beside("x.tar.NPZ") == "x.tar.png"
