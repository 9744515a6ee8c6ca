"""Where methods come from: the distribution whose file, or whose editable folder, it is; and reports say so."""

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ditstack.recipe import origin
from ditstack.recipe.adapter import find
from ditstack.recipe.recipe import Recipe
from ditstack.report import Report


def installed(folder: Path, name: str, files: list[str], url: dict[str, object] | None = None) -> metadata.Distribution:
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    if url is not None:
        (info / "direct_url.json").write_text(json.dumps(url))
    return metadata.PathDistribution(info)


@pytest.mark.parametrize(("editable", "said"), [(True, "ours 1.2"), (False, origin.UNPACKAGED)])
def test_a_method_is_of_the_distribution_whose_editable_folder_holds_it(
    editable: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "pyproject.toml").touch()
    method = root / "ditstack_adapters" / "cache" / "reuse.py"
    monkeypatch.setattr(sys.modules[find("cache", "reuse").__module__], "__file__", str(method))
    another = installed(tmp_path, "another", ["ditstack_adapters/cache/reuse.py"])  # a file of the same name elsewhere
    ours = installed(tmp_path, "ours", [], {"url": root.as_uri(), "dir_info": {"editable": editable}})
    monkeypatch.setattr(metadata, "distributions", lambda: [another, ours])
    origin.distribution_of.cache_clear()
    try:
        assert origin.origins(Recipe.read("tiny-none-native-reuse"))["cache"] == said
    finally:
        origin.distribution_of.cache_clear()


def test_a_method_is_of_the_distribution_that_lists_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(str(__import__(find("cache", "reuse").__module__, fromlist=["_"]).__file__)).parents[2]
    listing = installed(tmp_path, "lister", ["ditstack_adapters/cache/reuse.py"])
    monkeypatch.setattr(listing, "locate_file", lambda path: folder / path)
    monkeypatch.setattr(metadata, "distributions", lambda: [listing])
    origin.distribution_of.cache_clear()
    try:
        found = origin.distribution_of(find("cache", "reuse"))
        assert found is not None
        assert found.metadata["Name"] == "lister"
        assert origin.distribution_of(find("cache", "icc")) is None
    finally:
        origin.distribution_of.cache_clear()


def test_a_report_without_the_methods_distributions_can_still_be_read() -> None:
    old = {
        "recipe": "r", "resolved": {}, "versions": {}, "machine": "m", "device": "cpu", "weights": "w", "seed": 0,
        "seconds": {}, "peak_memory": 1, "steps": {}, "macs": 1, "macs_ratio": 1.0,
    }  # fmt: skip
    assert Report.model_validate(old).methods == {}
