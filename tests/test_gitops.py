"""The rendered tree: written whole, told by a manifest that `sha256sum` checks, cleaned of what is no longer rendered."""

import subprocess
from pathlib import Path

import pytest

from greenops_pipelines import gitops
from greenops_pipelines.errors import BadInput


def test_a_tree_is_checked_by_sha256sum_and_written_once(tmp_path: Path) -> None:
    files = {"a/b.yaml": "x: 1\n", "c.yaml": "ü\n"}
    first = gitops.write(tmp_path, files, "slo")
    assert (first.files, first.changed, first.removed) == (2, ("a/b.yaml", "c.yaml"), ())
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", gitops.manifest("slo")], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0
    again = gitops.write(tmp_path, files, "slo")
    assert (again.changed, again.digest) == ((), first.digest)


def test_what_is_no_longer_rendered_goes_and_what_others_put_there_stays(tmp_path: Path) -> None:
    gitops.write(tmp_path, {"slo/a.yaml": "1", "slo/b.yaml": "2"}, "slo")
    gitops.write(tmp_path, {"cost/c.yaml": "3"}, "cost")
    (tmp_path / "slo" / "mine.txt").write_text("hand-made")
    done = gitops.write(tmp_path, {"slo/a.yaml": "1"}, "slo")
    assert done.removed == ("slo/b.yaml",)
    assert sorted(p.name for p in (tmp_path / "slo").iterdir()) == ["a.yaml", "mine.txt"]
    assert (tmp_path / "cost" / "c.yaml").read_text() == "3"
    assert done.files == 1


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", "a//b", ".git/x", "a\nb", ""])
def test_no_path_leads_out_of_the_tree(path: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="rendered file: found the path"):
        gitops.write(tmp_path / "tree", {path: "x"}, "slo")
    assert not (tmp_path / "tree").exists()


def test_a_manifest_that_lies_removes_nothing_outside(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    outside.write_text("mine")
    gitops.write(tree, {"a": "1"}, "slo")
    (tree / gitops.manifest("slo")).write_text(f"{'0' * 64}  ../outside\n")
    gitops.write(tree, {"a": "1"}, "slo")
    assert outside.read_text() == "mine"


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(BadInput, match="not written"):
        gitops.write(tmp_path, {"a/b": "x"}, "slo")
