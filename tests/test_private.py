"""Which places a policy, which is code, may be loaded from."""

import os

import pytest

from sactory.errors import UserError
from sactory.run_dir import require_private

pytestmark = pytest.mark.timeout(60)


def export(directory):
    path = directory / "export"
    path.mkdir(parents=True)
    path.chmod(0o755)
    (path / "saved_model.pb").touch(0o644)
    return path


def test_tmp_is_no_danger_for_it_is_sticky(public_place):
    path = export(public_place)
    assert public_place.parent.stat().st_mode & 0o1002 == 0o1002
    require_private(path)
    path.chmod(0o777)
    with pytest.raises(UserError, match="write"):
        require_private(path)


@pytest.mark.parametrize("inner", [0o755, 0o700])
def test_a_directory_above_that_everybody_can_write_to_is_refused(public_place, inner):
    path = export(public_place / "all" / "mine")
    path.parent.chmod(inner)
    path.parent.parent.chmod(0o777)
    with pytest.raises(UserError, match=f"everybody can write to {public_place / 'all'}:"):
        require_private(path)
    path.parent.parent.chmod(0o1777)
    require_private(path)


def test_links_inside_are_refused_and_one_to_the_whole_is_followed(public_place):
    path = export(public_place)
    (public_place / "latest").symlink_to(path)
    require_private(public_place / "latest")
    os.replace(path / "saved_model.pb", public_place / "elsewhere")
    (path / "saved_model.pb").symlink_to(public_place / "elsewhere")
    with pytest.raises(UserError, match=r"saved_model\.pb is a link"):
        require_private(path)
