"""A migration that the code of before cannot live with: refused, allowed and held, and taken back."""

from __future__ import annotations

import json
import re
import uuid

from flipside_testbed import web
from flipside_testbed.blog import Blog


def test_a_destructive_migration_from_its_refusal_to_its_way_back(blog: Blog) -> None:
    wanted = blog.published("renaming")
    planned = blog.salt("deploy", "tag=renaming", "test=True").app("blog")
    (waiting,) = planned["data"]["migrations"]["pending"]
    assert [one["destructive"] for one in waiting["operations"]] == [True], planned
    assert "refused without allow=destructive: blog.0002_headline" in planned["comment"], planned
    releases = {path.name for path in (blog.host.apps / "blog/releases").iterdir()}
    assert wanted not in releases and not any(name.startswith(".new") for name in releases), releases
    refused = blog.salt("deploy", "tag=renaming")
    said = refused.app("blog")
    assert refused.code != 0 and said["state"] == "refused" and said["error"]["code"] == "gate", said
    assert "blog.0002_headline: RenameField Post.title -> headline" in said["error"]["message"], said
    assert f"flipside.deploy blog release={wanted} allow=destructive" in said["error"]["hint"], said
    blog.serves(blog.v1)

    with blog.load() as load:
        said = blog.deploy("renaming", "allow=destructive")
    assert said["state"] == "deployed" and "(held)" in said["comment"], said
    blog.serves(wanted)
    blog.kept_all(load)

    late = uuid.uuid4().hex
    web.write(blog.host, "blog", late)
    planned = blog.salt("rollback", "test=True").app("blog")
    (unknown,) = planned["data"]["migrations"]["unknown"]
    assert unknown["operations"][0]["kind"] == "RenameField", planned
    refused = blog.host.cli("rollback", "blog", "--with-data", "--json", check=False)
    error = json.loads(refused.stdout)["error"]
    assert refused.returncode == 3 and error["hint"].count("--with-data --yes") == 1, refused.stdout
    lost = int(re.search(r"at least (\d+) rows", error["message"])[1])
    assert late in web.posts(blog.host, "blog") and lost >= 1

    said = blog.salt("rollback", "with_data=True", "allow=data").app("blog")
    assert said["result"] and said["release"] == blog.v1, said
    blog.serves(blog.v1)
    assert late not in web.posts(blog.host, "blog")
    # The follower goes on with the databases that were put back.
    assert blog.salt("backup").app("blog")["result"]
