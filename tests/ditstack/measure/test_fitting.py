"""Fitting: the shelf for a device of a given size: what fits comes first, the fastest first, and each says why."""

import json

import pytest
from typer.testing import CliRunner

from ditstack.cli.app import app
from ditstack.cli.terminal import size_of
from ditstack.errors import BadFile
from ditstack.measure.check import Outcome, Verdict, remember
from ditstack.measure.fitting import not_ranked, ranking, ranking_lines
from ditstack.recipe.layers import shelf_names
from ditstack.recipe.recipe import Recipe
from ditstack.report import Estimate

ON_CPU = ["--set", "model.device=cpu"]
NO_SIZES = {"flux2", "hunyuanvideo15", "ltx2", "zimage", "wan-5b", "wan-int8-native-svdcache-5b"}
"""Families and recipes of whose models no size is declared."""
FLUX = ["flux", "flux-int8-native-svdcache", "flux-nf4-native-svdcache", "flux-int8-native-icc"]


def test_what_fits_comes_first_then_the_fastest_then_the_smallest() -> None:
    found = ranking(FLUX, 24e9)
    assert [(one.recipe, one.fit.fits) for one in found] == [
        ("flux-nf4-native-svdcache", True),
        ("flux-int8-native-svdcache", False),
        ("flux-int8-native-icc", False),
        ("flux", False),
    ]
    assert [one.recipe for one in ranking(FLUX, 40e9)][:2] == ["flux-nf4-native-svdcache", "flux-int8-native-svdcache"]
    first, second = ranking_lines(found)[:2]
    assert first.startswith("fits   12.7 GB  flux-nf4-native-svdcache ")
    assert "4.00x  planned: 7 full, 21 forecast steps; quality not measured" in first
    assert "with `--set model.offload=model` it needs about " in second


def test_every_recipe_of_the_shelf_is_ranked_and_small_models_stand_behind() -> None:
    found = ranking(shelf_names(), 24e9)
    unknown = {name for name in shelf_names() if name.split("-")[0] in NO_SIZES or name in NO_SIZES}
    assert {one.recipe for one in found} == set(shelf_names()) - unknown
    assert not_ranked(shelf_names(), found).endswith(": " + ", ".join(sorted(unknown)))
    assert not_ranked(["flux"], ranking(["flux"], 24e9)) == ""
    fitting = [one.recipe.startswith("tiny") for one in found if one.fit.fits]
    assert fitting == sorted(fitting)
    assert not fitting[0]


def test_what_was_measured_here_goes_before_the_plan() -> None:
    recipe = Recipe.read("flux-nf4-native-svdcache")
    found = Estimate(mean=41.0, low=38.5, high=43.0)
    outcome = Outcome(
        recipe=recipe.name, machine="", versions={}, prompts=4, seconds=1.0, left_out=[], own={}, speedup=1.5,
        verdicts=[Verdict(gate="psnr_min", wanted=40.0, found=found)], to_baseline={"psnr": found},
    )  # fmt: skip
    remember(recipe, outcome)
    (one,) = ranking(["flux-nf4-native-svdcache"], 24e9)
    assert (one.faster, one.measured) == (1.5, True)
    assert one.why == "measured here: 1.50x, PSNR 41.0 (from 38.5), gate missed"


def test_the_command_ranks_for_a_size_and_says_the_same_in_json() -> None:
    told = CliRunner().invoke(app, ["recipes", "--for", "24GB"])
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert lines[0].startswith("fits")
    assert lines[-1].startswith("no")
    rows = json.loads(CliRunner().invoke(app, ["recipes", "--for", "24GB", "--json"]).stdout)
    assert [row["recipe"] for row in rows] == [line.split()[3] for line in lines]
    assert rows[0]["room_bytes"] == 24 * 10**9


def test_the_shelf_a_plan_and_the_doctor_tell_the_memory() -> None:
    rows = json.loads(CliRunner().invoke(app, ["recipes", "--json"]).stdout)
    known = [row for row in rows if row["memory"] is not None]
    assert {row["recipe"].split("-")[0] for row in rows if row["memory"] is None} <= {*NO_SIZES, "wan"}
    assert all(row["memory"]["needs"] > 0 for row in known)
    assert {row["recipe"]: row["memory"]["fits"] for row in known}["tiny"]
    shown = CliRunner().invoke(app, ["show", "tiny-int8-native-svdcache", *ON_CPU]).stdout
    assert "memory: needs about 0.6 GB on the CPU: weights 0.0" in shown
    assert "memory: fits into a device of " in shown
    told = json.loads(CliRunner().invoke(app, ["show", "flux", "--json", *ON_CPU]).stdout)["memory"]
    assert told["parts"]["transformer"] == 4 * 11_901_408_320
    doctor = CliRunner().invoke(app, ["doctor", "flux-nf4-native-svdcache", *ON_CPU]).stdout
    assert "flux-nf4-native-svdcache:\nmemory: needs about " in doctor
    rows = json.loads(CliRunner().invoke(app, ["doctor", "flux-nf4-native-svdcache", "--json", *ON_CPU]).stdout)
    assert rows["recipe"]["memory"]["device"] == "cpu"


def test_sizes_are_read_with_their_unit() -> None:
    read = [size_of(text, "--for") for text in ("16GB", "1.5 m", "800", "", "24GiB")]
    assert read == [16 * 10**9, 1_500_000, 800, 0, 24 * 2**30]
    for wrong in ("lots", "٣GB", "-1", "1e9", "9" * 40):
        with pytest.raises(BadFile, match=r"--for: found .*; wanted a size such as 16GB"):
            size_of(wrong, "--for")
