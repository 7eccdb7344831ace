import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deployments import cli
from serve_app import chain
from serve_app.errors import BundleCorrupt, BundleNotFound, HistoryAltered, RepositoryError, ServeAppError
from serve_app.model import Bundle, atomic, load_bundle, write_bundle
from serve_app.model.atomic import LOCK
from serve_app.model.bundle import METADATA
from serve_app.model.history import Entry, Move
from serve_app.model.repository import HISTORY, LINK, Repository
from tests.factories import CANDIDATE, PRODUCTION, ROOT
from tests.sizes import size

NOW = datetime(2013, 3, 1, 21, 30, 0, 5, tzinfo=UTC)


@pytest.fixture
def models(tmp_path: Path, bundle: Bundle) -> Repository:
    """v1.0, v1.1 and v1.2, the first of them in production."""
    folder = tmp_path / "models"
    for shipped in (PRODUCTION, CANDIDATE):
        shutil.copytree(shipped, folder / shipped.name)
    renamed(bundle, folder / "v1.2")
    (folder / LINK).symlink_to("v1.0")
    (folder / LOCK).unlink()
    return Repository(folder)


def renamed(bundle: Bundle, path: Path) -> Bundle:
    config = bundle.config.model_copy(update={"model_version": path.name})
    return write_bundle(replace(bundle, path=path, config=config))


def promote(models: Repository, *versions: str) -> None:
    for version in versions:
        models.promote(version, who="ada", why=f"{version} is better", now=NOW)


def rollback(models: Repository) -> str:
    return models.rollback(who="ada", why="it is not", now=NOW).version


def moves(models: Repository) -> list[str]:
    return [f"{entry.action} {entry.previous_version} {entry.version}" for entry in models.history()]


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def content_of(folder: Path) -> dict[str, bytes | str]:
    """Everything in a repository but its lock."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and path.name != LOCK
    }


# What there is.


def test_versions_are_verified_and_in_ascending_order(models: Repository, bundle: Bundle) -> None:
    renamed(bundle, models.folder / "v1.10")
    versions = models.versions()
    assert [version.name for version in versions] == ["v1.0", "v1.1", "v1.2", "v1.10"]
    assert all(version.reason is None for version in versions)
    assert versions[0].digest == bundle.digest
    assert versions[1].architecture == "gru_attention"
    assert versions[0].metadata == bundle.metadata


def test_what_is_not_named_like_a_version_is_passed_over(models: Repository) -> None:
    for name in (".v1.3.signalgraph-unfinished", "notes", "v1", "v1.3.bak"):
        (models.folder / name).mkdir()
    (models.folder / "README").write_text("")
    assert [version.name for version in models.versions()] == ["v1.0", "v1.1", "v1.2"]


def test_a_version_that_cannot_be_used_is_listed_with_the_reason(models: Repository) -> None:
    spoil(models.folder / "v1.1" / METADATA)
    (models.folder / "v1.3").mkdir()
    (models.folder / "v1.4").symlink_to("v1.0")
    (models.folder / "v1.5").write_text("")
    shutil.copytree(models.folder / "v1.0", models.folder / "v1.6")
    reasons = {version.name: version.reason or "" for version in models.versions()}
    assert [name for name, reason in reasons.items() if not reason] == ["v1.0", "v1.2"]
    assert "metadata.json was changed" in reasons["v1.1"]
    assert "no bundle at" in reasons["v1.3"]
    assert "is a link" in reasons["v1.4"]
    assert reasons["v1.5"]
    assert "holds v1.0" in reasons["v1.6"]


def test_production_is_what_the_link_leads_to(models: Repository) -> None:
    assert models.production() == "v1.0"
    link = models.folder / LINK
    for target, expected in (("./v1.1", "v1.1"), (models.folder / "v1.2", "v1.2"), ("/else/v1.0", "/else/v1.0")):
        link.unlink()
        link.symlink_to(target)
        assert models.production() == expected
    link.unlink()
    assert models.production() is None
    link.mkdir()
    with pytest.raises(RepositoryError, match="is not a link"):
        models.production()


def test_reading_writes_nothing(models: Repository) -> None:
    before = content_of(models.folder)
    models.versions(), models.production(), models.history(), models.interrupted()
    assert content_of(models.folder) == before
    assert not (models.folder / LOCK).exists()


def test_the_shipped_repository_is_in_order() -> None:
    shipped = Repository(ROOT / "models")
    assert all(version.reason is None for version in shipped.versions())
    assert shipped.interrupted() is None


def test_a_repository_that_is_not_there_is_refused(tmp_path: Path) -> None:
    nowhere = Repository(tmp_path / "nowhere")
    for use in (nowhere.versions, lambda: promote(nowhere, "v1.0"), lambda: rollback(nowhere)):
        with pytest.raises(RepositoryError, match="no model repository at"):
            use()


# Promotion.


def test_a_promotion_moves_the_link_and_says_who_when_why_and_from_what(models: Repository, bundle: Bundle) -> None:
    eastern = NOW.astimezone(datetime.strptime("-0500", "%z").tzinfo)
    entry = models.promote("v1.1", who="ada", why="größere Trefferquote ≥ 0.5", now=eastern)
    assert models.production() == "v1.1"
    assert load_bundle(models.folder / LINK).version == "v1.1"
    assert models.history() == [entry]
    assert entry.action is Move.PROMOTE
    assert entry.at == NOW
    assert entry.at.utcoffset() == timedelta(0)
    assert (entry.version, entry.digest) == ("v1.1", load_bundle(CANDIDATE).digest)
    assert (entry.previous_version, entry.previous_digest) == ("v1.0", bundle.digest)
    assert (entry.who, entry.why) == ("ada", "größere Trefferquote ≥ 0.5")
    assert '"at": "2013-03-01T21:30:00.000005Z"' in (models.folder / HISTORY).read_text()


def test_the_first_promotion_needs_no_link(models: Repository) -> None:
    (models.folder / LINK).unlink()
    promote(models, "v1.1")
    assert models.production() == "v1.1"
    assert moves(models) == ["promote None v1.1"]
    with pytest.raises(RepositoryError, match="nothing that was in production before"):
        rollback(models)


def test_a_link_that_dangles_is_no_obstacle(models: Repository) -> None:
    (models.folder / LINK).unlink()
    (models.folder / LINK).symlink_to("v0.9")
    promote(models, "v1.1")
    assert moves(models) == ["promote v0.9 v1.1"]
    assert models.history()[0].previous_digest is None
    with pytest.raises(BundleNotFound):
        rollback(models)


@pytest.mark.parametrize("version", ["v9.9", "production", "../models/v1.1", "v1.1/", "/v1.1", "", ".", "v1.1\n"])
def test_what_is_no_version_cannot_be_promoted(models: Repository, version: str) -> None:
    before = content_of(models.folder)
    with pytest.raises((RepositoryError, BundleNotFound)):
        promote(models, version)
    assert content_of(models.folder) == before


def test_a_spoilt_bundle_cannot_be_promoted(models: Repository) -> None:
    spoil(models.folder / "v1.1" / METADATA)
    before = content_of(models.folder)
    with pytest.raises(BundleCorrupt, match=r"metadata\.json was changed"):
        promote(models, "v1.1")
    assert content_of(models.folder) == before


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "\x1b[31mred", "\udcff"])
def test_who_and_why_are_one_readable_line(models: Repository, text: str) -> None:
    for said in ({"who": text, "why": "it is better"}, {"who": "ada", "why": text}):
        with pytest.raises(RepositoryError, match="one line of readable text"):
            models.promote("v1.1", now=NOW, **said)
        with pytest.raises(RepositoryError, match="one line of readable text"):
            models.rollback(now=NOW, **said)
    assert models.history() == []


def test_a_time_without_a_zone_is_refused(models: Repository) -> None:
    with pytest.raises(ValueError, match="time zone"):
        models.promote("v1.1", who="ada", why="it is better", now=NOW.replace(tzinfo=None))
    assert models.history() == []


# Going back.


def test_rollbacks_walk_back_to_the_first(models: Repository) -> None:
    promote(models, "v1.1", "v1.2")
    assert [rollback(models), rollback(models)] == ["v1.1", "v1.0"]
    assert models.production() == "v1.0"
    with pytest.raises(RepositoryError, match="nothing that was in production before"):
        rollback(models)
    assert moves(models) == ["promote v1.0 v1.1", "promote v1.1 v1.2", "rollback v1.2 v1.1", "rollback v1.1 v1.0"]


def test_what_was_rolled_back_is_not_before_what_came_after(models: Repository) -> None:
    promote(models, "v1.1")
    rollback(models)
    promote(models, "v1.2")
    assert rollback(models) == "v1.0"


def test_a_version_that_served_twice_is_come_by_twice(models: Repository) -> None:
    promote(models, "v1.1", "v1.0", "v1.2")
    assert [rollback(models) for _ in range(3)] == ["v1.0", "v1.1", "v1.0"]


def test_promoting_what_serves_already_is_recorded_and_no_step_back(models: Repository) -> None:
    promote(models, "v1.1", "v1.1", "v1.1")
    assert len(models.history()) == 3
    assert rollback(models) == "v1.0"


def test_nothing_was_before_what_was_shipped(models: Repository) -> None:
    with pytest.raises(RepositoryError, match="nothing that was in production before"):
        rollback(models)
    assert models.history() == []


def test_a_link_that_was_moved_by_hand_shows_in_the_history_and_counts_as_a_step(models: Repository) -> None:
    promote(models, "v1.1")
    (models.folder / LINK).unlink()
    (models.folder / LINK).symlink_to("v1.2")
    assert models.interrupted() is None
    assert [rollback(models), rollback(models)] == ["v1.1", "v1.0"]
    assert moves(models) == ["promote v1.0 v1.1", "rollback v1.2 v1.1", "rollback v1.1 v1.0"]


def test_one_can_leave_a_bundle_that_was_damaged_while_it_served(models: Repository) -> None:
    promote(models, "v1.1")
    spoil(models.folder / "v1.1" / METADATA)
    assert rollback(models) == "v1.0"
    assert models.history()[-1].previous_digest is None


def test_one_cannot_go_back_to_what_is_damaged_or_another_bundle_by_now(models: Repository, bundle: Bundle) -> None:
    promote(models, "v1.1", "v1.2")
    spoil(models.folder / "v1.1" / METADATA)
    with pytest.raises(BundleCorrupt):
        rollback(models)
    shutil.rmtree(models.folder / "v1.1")
    renamed(bundle, models.folder / "v1.1")
    with pytest.raises(RepositoryError, match=r"v1\.1 is sha256:\w+ now and was sha256:\w+ when it was in production"):
        rollback(models)
    assert models.production() == "v1.2"
    assert len(models.history()) == 2


# The history.


def lines_of(models: Repository) -> list[bytes]:
    return (models.folder / HISTORY).read_bytes().splitlines(keepends=True)


def test_a_changed_byte_anywhere_is_found_and_its_line_named(models: Repository) -> None:
    promote(models, "v1.1", "v1.2", "v1.0")
    lines = lines_of(models)
    for number, line in enumerate(lines, start=1):
        for position in range(len(line) - 1):
            changed = bytearray(line)
            changed[position] ^= 1
            (models.folder / HISTORY).write_bytes(b"".join([*lines[: number - 1], changed, *lines[number:]]))
            with pytest.raises(HistoryAltered, match=f"line {number} of .*{HISTORY} was altered"):
                models.history()


def resealed(line: bytes) -> bytes:
    """The line with another reason, its own hash made to agree."""
    fields = {**json.loads(line), "why": "another reason"}
    del fields["sha256"]
    seal = chain.sha256(json.dumps(fields, ensure_ascii=False).encode())
    return json.dumps({**fields, "sha256": seal}, ensure_ascii=False).encode() + b"\n"


@pytest.mark.parametrize(
    ("alter", "number"),
    [
        (lambda lines: [resealed(lines[0]), *lines[1:]], 2),
        (lambda lines: [lines[0], resealed(lines[1]), lines[2]], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: [lines[0], lines[2], lines[1]], 2),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
        (lambda lines: [lines[0], b"\n", *lines[1:]], 2),
        (lambda lines: [lines[0], b"\xff\n", *lines[1:]], 2),
        (lambda lines: [lines[0].replace(b'": "', b'":"', 1), *lines[1:]], 1),
        (lambda lines: [lines[0].replace(b"\n", b"\r\n"), *lines[1:]], 1),
    ],
    ids=["first", "middle", "head removed", "removed", "swapped", "twice", "blank", "no text", "spaces", "CRLF"],
)
def test_an_altered_history_is_refused_and_stops_every_move(
    models: Repository, alter: Callable[[list[bytes]], list[bytes]], number: int
) -> None:
    promote(models, "v1.1", "v1.2", "v1.0")
    (models.folder / HISTORY).write_bytes(b"".join(alter(lines_of(models))))
    before = content_of(models.folder)
    for use in (models.history, lambda: promote(models, "v1.1"), lambda: rollback(models)):
        with pytest.raises(HistoryAltered, match=f"line {number} of"):
            use()
    assert content_of(models.folder) == before


def test_a_line_torn_at_any_byte_never_happened_and_the_next_move_removes_it(models: Repository) -> None:
    promote(models, "v1.1", "v1.2")
    first, second = lines_of(models)
    for end in range(len(second)):
        (models.folder / HISTORY).write_bytes(first + second[:end])
        assert [entry.version for entry in models.history()] == ["v1.1"]
    (models.folder / LINK).unlink()
    (models.folder / LINK).symlink_to("v1.1")
    promote(models, "v1.0")
    assert moves(models) == ["promote v1.0 v1.1", "promote v1.1 v1.0"]


def test_what_was_recorded_and_not_done_is_said_and_done_by_the_next_move(models: Repository) -> None:
    promote(models, "v1.1")
    for use, expected in ((lambda: promote(models, "v1.2"), "v1.2"), (lambda: rollback(models), "v1.1")):
        before = models.production()
        use()
        assert models.interrupted() is None
        (models.folder / LINK).unlink()
        (models.folder / LINK).symlink_to(before or "")  # as if it was killed between the two
        last = models.interrupted()
        assert last is not None
        assert last.version == expected
        with pytest.raises(BundleNotFound):
            promote(models, "v9.9")  # whatever comes of it itself
        assert models.production() == expected
        assert models.interrupted() is None
    assert moves(models) == ["promote v1.0 v1.1", "promote v1.1 v1.2", "rollback v1.2 v1.1"]


def test_what_was_interrupted_and_is_damaged_by_now_is_not_put_into_production(models: Repository) -> None:
    promote(models, "v1.1")
    (models.folder / LINK).unlink()
    (models.folder / LINK).symlink_to("v1.0")
    spoil(models.folder / "v1.1" / METADATA)
    promote(models, "v1.2")
    assert moves(models) == ["promote v1.0 v1.1", "promote v1.0 v1.2"]
    assert rollback(models) == "v1.0"


def test_a_line_that_cannot_be_made_durable_is_taken_back(models: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(models, "v1.1")
    before = content_of(models.folder)

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            promote(models, "v1.2")
    assert content_of(models.folder) == before
    promote(models, "v1.2")
    assert len(models.history()) == 2


# Killed.

KILLED = """
import os, shutil, signal, sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from serve_app import chain
from serve_app.model import atomic, history, load_bundle, repository, write_bundle

action, template, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
OURS = {atomic.__file__, chain.__file__, history.__file__, repository.__file__}
now = datetime(2013, 3, 1, tzinfo=UTC)
original = load_bundle(template / "v1.0")
known = len(repository.Repository(template).history())
whole = len(list(original.path.iterdir()))

def act(models):
    if action == "write":
        config = original.config.model_copy(update={"model_version": "v1.3"})
        write_bundle(replace(original, path=models.folder / "v1.3", config=config))
    elif action == "promote":
        models.promote("v1.2", who="ada", why="killed", now=now)
    else:
        models.rollback(who="ada", why="killed", now=now)

def visible(models):
    # What a reader sees at any line: production, and every bundle that is there, with all its files.
    for path in (models.folder / "production", *models.folder.glob("v*")):
        assert len(list(path.iterdir())) == whole, path

def killed_at(step, models):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        code = frame.f_code
        if code.co_filename not in OURS and code.co_name != "write_bundle":
            return None
        if event == "line":
            lines += 1
            if step is None:
                visible(models)
            if lines == step:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    act(models)
    sys.settrace(None)
    return lines

def check(models, done):
    production = load_bundle(models.folder / "production").version
    expected = {"promote": "v1.2", "rollback": "v1.0", "write": "v1.1"}[action]
    assert production in ("v1.1", expected)
    recorded = len(models.history()) - known
    assert recorded <= 1
    written = (models.folder / "v1.3").exists()
    if written:
        load_bundle(models.folder / "v1.3")
    if done:
        assert production == expected and recorded == (action != "write") and written == (action == "write")
    if production != "v1.1":
        assert recorded == 1
    models.promote("v1.0", who="ada", why="next", now=now)
    history = models.history()
    assert [entry.why for entry in history[known:]] == ["killed"] * recorded + ["next"]
    assert history[-1].previous_version == (expected if recorded else "v1.1")
    assert load_bundle(models.folder / "production").version == "v1.0"
    hidden = {path.name for path in models.folder.iterdir() if path.name.startswith(".")}
    assert hidden == {".lock"}, hidden
    return recorded and production == "v1.1"

def copy(source, target):
    # What never changes need not be copied.
    (shutil.copy if source.endswith(repository.HISTORY) else os.link)(source, target)

def once(step):
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(template, work, symlinks=True, copy_function=copy)
    models = repository.Repository(work)
    if step is None:
        lines = killed_at(None, models)
        check(models, True)
        return lines
    child = os.fork()
    if child == 0:
        killed_at(step, models)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    return check(models, False)

lines = once(None)
wanted = min(lines, int(sys.argv[4]))
interrupted = sum(once(1 + i * (lines - 1) // (wanted - 1)) for i in range(wanted))
print(lines, wanted, interrupted)
"""


@pytest.mark.parametrize("action", ["write", "promote", "rollback"])
def test_a_process_killed_at_any_line_leaves_a_whole_repository(models: Repository, action: str) -> None:
    promote(models, "v1.1")
    work, lines = models.folder.parent / "work", size("lines that a move is killed at")
    command = [sys.executable, "-c", KILLED, action, str(models.folder), str(work), str(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines, killed, interrupted = map(int, done.stdout.split())
    print(f"{action}: {lines} lines, killed at {killed} of them, {interrupted} times between record and move")
    assert killed > 30
    assert (interrupted > 0) == (action != "write")  # also between the record and the move


# Races.


def test_racing_promotions_leave_a_whole_repository_with_all_of_them(models: Repository) -> None:
    versions = ["v1.1", "v1.2"] * 8
    start = threading.Barrier(len(versions))

    def race(i: int) -> Entry:
        start.wait()
        return Repository(models.folder).promote(versions[i], who=f"desk {i}", why="first", now=NOW)

    with ThreadPoolExecutor(len(versions)) as threads:
        entries = list(threads.map(race, range(len(versions))))
    history = models.history()
    assert sorted(entry.who for entry in history) == sorted(f"desk {i}" for i in range(len(versions)))
    assert all(entry in history for entry in entries)
    assert [entry.previous_version for entry in history] == ["v1.0", *(entry.version for entry in history[:-1])]
    assert models.production() == history[-1].version


RACER = """
import sys
from datetime import UTC, datetime
from serve_app.model.repository import Repository
models = Repository(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for i in range(20):
    models.promote(sys.argv[2], who=sys.argv[2], why=str(i), now=datetime(2013, 3, 1, tzinfo=UTC))
"""


def test_racing_processes_leave_a_whole_repository_with_all_of_them(models: Repository) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(models.folder), version],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in ("v1.1", "v1.2")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.communicate("go\n", timeout=60)
        assert racer.returncode == 0
    history = models.history()
    for version in ("v1.1", "v1.2"):
        assert [entry.why for entry in history if entry.version == version] == [str(i) for i in range(20)]
    assert models.production() == history[-1].version


# Writing a bundle.


def test_nothing_shows_of_a_bundle_while_it_is_written_and_none_of_it_is_swept(models: Repository) -> None:
    path = models.folder / "v1.3"
    with atomic.new_folder(path) as unfinished:
        (unfinished / "some").write_text("half")
        assert unfinished.parent == path.parent
        assert unfinished.name.startswith(".")
        assert [version.name for version in models.versions()] == ["v1.0", "v1.1", "v1.2"]
        waiting = threading.Thread(target=promote, args=(models, "v1.1"))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()  # a promotion sweeps, so it waits
        assert models.production() == "v1.0"
        assert (unfinished / "some").exists()
    waiting.join(30)
    assert models.production() == "v1.1"
    assert (path / "some").read_text() == "half"


def test_a_write_that_fails_leaves_nothing(models: Repository, bundle: Bundle) -> None:
    before = content_of(models.folder)
    wrong = replace(bundle, path=models.folder / "v1.3", config=bundle.config.model_copy(update={"bars_needed": -1}))
    with pytest.raises(BundleCorrupt, match="bars_needed"):
        write_bundle(wrong)
    assert content_of(models.folder) == before
    assert not list(models.folder.glob(".v*"))


@pytest.mark.parametrize(
    "appear",
    [
        Path.mkdir,
        lambda path: shutil.copytree(PRODUCTION, path),
        Path.touch,
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["empty folder", "folder", "file", "dangling link"],
)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_is_there_is_never_replaced(models: Repository, appear: Callable[[Path], object], when: str) -> None:
    path = models.folder / "v1.3"

    def write() -> None:
        with atomic.new_folder(path) as unfinished:
            (unfinished / "some").write_text("ours")
            if when == "meanwhile":
                appear(path)

    if when == "before":
        appear(path)
    with pytest.raises(FileExistsError, match="never changes"):
        write()
    assert os.path.lexists(path)
    assert b"ours" not in content_of(models.folder).values()
    assert not list(models.folder.glob(".v*"))


def test_what_a_killed_writer_left_is_removed_by_the_next_move(models: Repository) -> None:
    left = models.folder / f".v1.3{atomic.UNFINISHED}"
    shutil.copytree(models.folder / "v1.0", left)
    (models.folder / f".{LINK}{atomic.UNFINISHED}").symlink_to("v1.1")
    (models.folder / ".v1.3.theirs").mkdir()
    promote(models, "v1.2")
    assert sorted(path.name for path in models.folder.glob(".*")) == [LOCK, ".v1.3.theirs"]
    assert (models.folder / "v1.1" / METADATA).exists()


# The commands.


def run(models: Repository, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["models", *arguments, "--models-dir", str(models.folder)])


def test_the_commands_tell_what_there_is_and_what_was(models: Repository) -> None:
    spoil(models.folder / "v1.2" / METADATA)
    assert "v1.0 → v1.1" in run(models, "promote", "v1.1", "--who", "ada", "--why", "it is better").output
    listed = run(models, "list").output.splitlines()
    assert [word in listed[0] for word in ("ARCHITECTURE", "TEST AP", "BASE RATE", "COMMIT", "TAG")] == [True] * 5
    assert listed[1].split()[:2] == ["v1.0", "lstm_attention"]
    assert listed[2].split()[:3] == ["production", "v1.1", "gru_attention"]
    assert "v1.2 cannot be used: " in listed[4]
    assert "metadata.json was changed" in listed[4]
    document = json.loads(run(models, "list", "--json").output)
    assert document["production"] == "v1.1"
    assert [version["verified"] for version in document["versions"]] == [True, True, False]
    assert 0 < document["versions"][0]["test"]["base_rate"] < document["versions"][0]["test"]["average_precision"] < 1
    assert "v1.1 → v1.0" in run(models, "rollback", "--why", "it is not").output
    assert [line.split()[2] for line in run(models, "history").output.splitlines()[1:]] == ["promote", "rollback"]
    entries = json.loads(run(models, "history", "--json").output)
    assert (entries[0]["who"], entries[0]["why"]) == ("ada", "it is better")
    assert entries[1]["who"]


def test_the_tag_of_a_version_is_shown(models: Repository) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, "-C", str(models.folder), *arguments], check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "trained")
    git("tag", "model-v1.1")
    versions = json.loads(run(models, "list", "--json").output)["versions"]
    assert [version["git_tag"] for version in versions] == [None, "model-v1.1", None]
    assert run(models, "list").output.splitlines()[2].endswith("model-v1.1")


def test_the_commands_say_what_was_interrupted(models: Repository) -> None:
    promote(models, "v1.1")
    (models.folder / LINK).unlink()
    (models.folder / LINK).symlink_to("v1.0")
    for command in ("list", "history"):
        assert "the promote of v1.1 at 2013-03-01" in run(models, command).output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("promote", "v9.9", "--why", "x"), 1, "no bundle at"),
        (("promote", "v1.1"), 2, "--why"),
        (("promote", "v1.1", "--why", " "), 1, "why must be one line"),
        (("rollback", "--why", "x"), 1, "nothing that was in production before"),
    ],
)
def test_a_refusal_is_a_message(models: Repository, arguments: tuple[str, ...], code: int, said: str) -> None:
    result = run(models, *arguments)
    assert result.exit_code == code
    assert said in result.output
    assert "Traceback" not in result.output


def test_nothing_promoted_yet_is_said(models: Repository) -> None:
    assert run(models, "history").output == "nothing was promoted yet\n"
    assert issubclass(HistoryAltered, ServeAppError)
