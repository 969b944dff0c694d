"""What dbt parsed is kept where many homes find it, and only there."""

import shutil
from pathlib import Path

from greenops_pipelines.lake.dbt import Project

DBT = Path(__file__).parents[2] / "dbt"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.json"))


def test_another_home_takes_it_from_the_cache(tmp_path: Path) -> None:
    sources, cache = tmp_path / "sources", tmp_path / "cache"
    shutil.copytree(DBT, sources, ignore=shutil.ignore_patterns("target", "logs"))
    first = Project(sources, tmp_path / "first", cache)
    assert "cost_daily" in {mart.table.name for mart in first.marts}
    [parsed] = _names(cache)
    written = (cache / parsed).stat().st_mtime_ns
    second = Project(sources, tmp_path / "second", cache)
    assert second.marts == first.marts
    assert (cache / parsed).stat().st_mtime_ns == written
    assert _names(tmp_path / "second") == []
    # Other sources are parsed anew, and leave what belongs to another checkout.
    with (sources / "models" / "marts" / "cost" / "cost_daily.sql").open("a", encoding="utf-8") as file:
        file.write("-- changed\n")
    assert Project(sources, tmp_path / "third", cache).marts != first.marts
    assert parsed in _names(cache)
    assert len(_names(cache)) == 2


def test_a_home_without_a_cache_keeps_its_newest(tmp_path: Path) -> None:
    sources, home = tmp_path / "sources", tmp_path / "home"
    shutil.copytree(DBT, sources, ignore=shutil.ignore_patterns("target", "logs"))
    home.mkdir()
    (home / "manifest-0000000000000000.json").write_text("{}", encoding="utf-8")
    assert Project(sources, home).marts
    [name] = _names(home)
    assert name != "manifest-0000000000000000.json"
