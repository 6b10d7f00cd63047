"""What every Host promises, tried on a real machine; written once, inherited by the tests of each Host."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from slurm_plugin.errors import HostError, TransportError
from slurm_plugin.hosts.base import Host, HostProcess, StagedFile, StagedLink

MAKE = Callable[[], Host]
PATIENCE_SECONDS = 20

HOSTILE = [
    "",
    " ",
    "'",
    '"',
    "\\",
    "a'b\"c\\d`e`$(f)$g;h|i&j>k<l*m?n[o]p{q}r~s#t!u%v",
    "line\nline\r\n\ttab",
    "-n",
    "--",
    "naïve → 漢字 🐡",
    "\udcff\udc80",
    "\x01\x1b[31m\x7f",
    "x" * 100_000,
]


async def read_all(process: HostProcess) -> bytes:
    """Everything a process prints on its standard output."""
    pieces = []
    while piece := await process.read():
        pieces.append(piece)
    return b"".join(pieces)


async def take(stream: AsyncIterator[bytes], size: int) -> bytes:
    """At least ``size`` bytes of what a follower yields."""
    data = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(data) < size:
            data += await anext(stream)
    return data


async def content(host: Host, path: str) -> bytes:
    """A file's content, as soon as it has some."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (data := await host.read(path)):  # noqa: ASYNC110  nobody tells us
            await asyncio.sleep(0.01)
    return data


async def until_gone(host: Host, pid: int) -> None:
    """Wait until a process has ended, reaped or not."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await alive(host, pid):  # noqa: ASYNC110  nobody tells us
            await asyncio.sleep(0.01)


async def alive(host: Host, pid: int) -> bool:
    """Whether a process runs."""
    try:
        stat = await host.read(f"/proc/{pid}/stat")
    except HostError as error:
        if "No such process" in str(error):  # it ended between open and read
            return False
        raise
    return stat is not None and stat.rpartition(b") ")[2][:1] not in {b"Z", b"X"}


async def mode(host: Host, path: str) -> str:
    """A file's permission bits, as stat says them."""
    return (await host.run(["stat", "-c", "%a", path], timeout=60)).stdout.decode().strip()


async def shell(host: Host, script: str, *arguments: str) -> None:
    """Run a script that prepares something."""
    done = await host.run(["sh", "-euc", script, "sh", *arguments], timeout=30)
    assert done.exit_code == 0, done.stderr


@pytest.mark.asyncio(loop_scope="class")
class HostContract:
    """All its tests share one Host, as all of a user's pods do.

    Give it fixtures ``make_host`` (class scope), ``area`` (an empty directory there, all its parents trustworthy) and ``foreign`` (another user's)."""

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def host(cls, make_host: MAKE) -> AsyncIterator[Host]:
        host = make_host()
        yield host
        await host.close()

    # Commands

    async def test_it_says_who_it_acts_as(self, host: Host) -> None:
        told = await host.run(["sh", "-c", 'printf "%s %s" "$(id -un)" "$HOME"'], timeout=60)
        assert told.stdout.decode() == f"{await host.user()} {await host.home()}"

    async def test_a_command_runs_to_its_end(self, host: Host) -> None:
        done = await host.run(["sh", "-c", "cat; echo oops >&2; exit 3"], stdin=b"hello", timeout=60)
        assert (done.exit_code, done.stdout, done.stderr) == (3, b"hello", b"oops\n")
        assert done.argv[0] == "sh"

    async def test_a_signal_is_an_exit_code(self, host: Host) -> None:
        assert (await host.run(["sh", "-c", "kill -9 $$"], timeout=60)).exit_code == 137
        assert (await host.run(["sh", "-c", "kill -TERM $$"], timeout=60)).exit_code == 143

    async def test_commands_get_a_clean_environment(self, host: Host) -> None:
        told = await host.run(["env", "-0"], timeout=60)
        variables = dict(entry.split("=", 1) for entry in told.stdout.decode().split("\0") if entry)
        assert set(variables) == {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG"}
        assert (variables["USER"], variables["LANG"]) == (await host.user(), "C.UTF-8")

    async def test_commands_start_in_the_root_directory(self, host: Host) -> None:
        assert (await host.run(["pwd"], timeout=60)).stdout == b"/\n"

    async def test_arguments_arrive_unchanged(self, host: Host) -> None:
        for argument in HOSTILE:
            done = await host.run(["printf", "%s|%s", argument, "end"], timeout=60)
            assert done.stdout == argument.encode("utf-8", "surrogateescape") + b"|end"

    async def test_a_nul_is_refused(self, host: Host) -> None:
        with pytest.raises(HostError, match="NUL"):
            await host.run(["echo", "a\0b"], timeout=60)
        with pytest.raises(HostError, match="NUL"):
            await host.read("/tmp/a\0b")

    @pytest.mark.parametrize(
        ("argv", "words"), [(["no-such-command"], "no-such-command: No such file"), (["/etc"], "Permission denied")]
    )
    async def test_a_command_that_cannot_be_started_is_said_in_the_machines_words(
        self, host: Host, argv: list[str], words: str
    ) -> None:
        with pytest.raises(HostError, match=words):
            await host.run(argv, timeout=60)
        with pytest.raises(HostError, match=words):
            async with host.process(argv):
                pass

    async def test_an_empty_argv_is_refused(self, host: Host) -> None:
        with pytest.raises(HostError):
            await host.run([], timeout=60)

    async def test_much_goes_in_and_comes_out(self, host: Host) -> None:
        data = bytes(range(256)) * 80_000
        assert (await host.run(["cat"], stdin=data, timeout=30)).stdout == data

    async def test_a_command_may_ignore_its_input(self, host: Host) -> None:
        assert (await host.run(["true"], stdin=bytes(5_000_000), timeout=60)).exit_code == 0

    async def test_a_time_out_kills_the_command_and_what_it_started(self, host: Host, area: str) -> None:
        script = 'trap "" TERM; sleep 300 & echo $! > "$1"; wait; wait'
        with pytest.raises(TimeoutError):
            await host.run(["sh", "-c", script, "sh", f"{area}/pid"], timeout=0.5)
        await until_gone(host, int(await content(host, f"{area}/pid")))

    async def test_a_cancelled_call_kills_its_command(self, host: Host, area: str) -> None:
        call = asyncio.ensure_future(
            host.run(["sh", "-c", 'echo $$ > "$1"; sleep 300', "sh", f"{area}/pid"], timeout=600)
        )
        pid = int(await content(host, f"{area}/pid"))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until_gone(host, pid)

    async def test_slow_commands_do_not_hold_up_others(self, host: Host, area: str) -> None:
        slow = [asyncio.ensure_future(host.run(["sleep", "300"], timeout=600)) for _ in range(12)]
        began = time.monotonic()
        await host.run(["true"], timeout=60)
        await host.list_directory(area)
        assert time.monotonic() - began < 5
        for call in slow:
            call.cancel()
        await asyncio.wait(slow)

    async def test_many_commands_at_once_all_end(self, host: Host) -> None:
        done = await asyncio.gather(*(host.run(["echo", str(n)], timeout=60) for n in range(100)))
        assert [int(one.stdout) for one in done] == list(range(100))

    # Processes

    async def test_a_process_has_three_streams_and_an_end(self, host: Host) -> None:
        async with host.process(["sh", "-c", "cat; echo oops >&2; exit 7"]) as process:
            await process.write(b"one ")
            assert await process.read() == b"one "
            await process.write(b"two")
            await process.close_stdin()
            assert await read_all(process) == b"two"
            assert await process.read() == b""
            assert await process.read_error() == b"oops\n"
            assert await process.wait() == 7

    async def test_leaving_the_context_kills_the_process_and_what_it_started(self, host: Host) -> None:
        async with host.process(["sh", "-c", "trap '' TERM; sleep 300 & echo $$ $!; wait; wait"]) as process:
            pids = [int(word) for word in (await process.read()).split()]
        for pid in pids:
            await until_gone(host, pid)

    async def test_a_process_that_ended_leaves_nothing_behind(self, host: Host) -> None:
        async with host.process(["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"]) as process:
            pid = int(await read_all(process))
            assert await process.wait() == 0
        await until_gone(host, pid)

    async def test_writing_to_a_process_that_reads_no_more_is_an_error(self, host: Host) -> None:
        async with host.process(["sh", "-c", "exec <&-; echo closed; sleep 300"]) as process:
            await process.read()
            with pytest.raises(HostError, match="standard input"):
                await process.write(bytes(5_000_000))

    async def test_an_unread_stream_is_bounded_and_blocks_nobody(self, host: Host) -> None:
        size = 30_000_000
        async with host.process(["sh", "-c", f"head -c {size} /dev/zero"]) as process:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await process.wait()
            assert (await host.run(["echo", "still here"], timeout=60)).stdout == b"still here\n"
            assert len(await read_all(process)) == size
            assert await process.wait() == 0

    async def test_a_process_that_does_not_read_holds_its_writer(self, host: Host) -> None:
        async with host.process(["sh", "-c", "read line; cat | wc -c"]) as process:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await process.write(bytes(30_000_000))
            assert (await host.run(["true"], timeout=60)).exit_code == 0

    async def test_large_streams_arrive_whole_both_ways(self, host: Host) -> None:
        data = bytes(range(256)) * 40_000

        async def write(process: HostProcess) -> None:
            await process.write(data)
            await process.close_stdin()

        async with host.process(["cat"]) as process, asyncio.TaskGroup() as group:
            group.create_task(write(process), name="write")
            assert await read_all(process) == data

    # Staging

    async def test_a_directory_is_staged_whole(self, host: Host, area: str) -> None:
        entries = [
            StagedFile("plan.json", b"{}"),
            StagedFile("job.sh", b"#!/bin/sh\necho hi\n", 0o700),
            StagedFile("volumes/v/..1/deep/er/file", b"\x00\xff", 0o444),
            StagedFile("empty", b"", 0o666),
            StagedLink("volumes/v/..data", "..1"),
            StagedLink("volumes/v/deep", "..data/deep"),
        ]
        made = f"{area}/new/parents/pod"
        assert await host.stage(made, entries)
        assert await host.list_directory(made) == ("empty", "job.sh", "plan.json", "volumes")
        assert await host.read(f"{made}/volumes/v/..1/deep/er/file") == b"\x00\xff"
        told = await host.run(["cat", f"{made}/volumes/v/deep/er/file"], timeout=60)
        assert told.stdout == b"\x00\xff"
        modes = {
            name: await mode(host, f"{area}/{name}") for name in ("new", "new/parents/pod", "new/parents/pod/volumes/v")
        }
        assert set(modes.values()) == {"700"}
        assert await mode(host, f"{made}/plan.json") == "600"
        assert await mode(host, f"{made}/job.sh") == "700"
        assert await mode(host, f"{made}/empty") == "666"
        assert await host.list_directory(f"{area}/new/parents") == ("pod",)

    async def test_what_exists_is_left_untouched(self, host: Host, area: str) -> None:
        assert await host.stage(f"{area}/pod", [StagedFile("a", b"first")])
        assert not await host.stage(f"{area}/pod", [StagedFile("a", b"second"), StagedFile("b", b"")])
        assert await host.read(f"{area}/pod/a") == b"first"
        assert await host.list_directory(f"{area}/pod") == ("a",)
        assert await host.stage(f"{area}/bare", [])
        assert not await host.stage(f"{area}/bare", [])

    async def test_of_many_at_once_one_stages(self, host: Host, area: str) -> None:
        files = [[StagedFile(f"{n}-{i}", b"x") for i in range(20)] for n in range(8)]
        made = await asyncio.gather(*(host.stage(f"{area}/deep/pod", entries) for entries in files))
        assert sum(made) == 1
        names = await host.list_directory(f"{area}/deep/pod")
        assert names is not None
        assert len({name.split("-")[0] for name in names}) == 1
        assert await host.list_directory(f"{area}/deep") == ("pod",)

    async def test_entries_stay_inside_and_a_failure_leaves_nothing(self, host: Host, area: str) -> None:
        for path in ("../out", "/etc/x", "a/../../x", "", "a//b", "./a", "fine", "fine/below"):
            with pytest.raises(HostError):
                await host.stage(f"{area}/pod", [StagedFile("fine", b""), StagedFile(path, b"")])
            assert await host.list_directory(area) == ()

    async def test_an_entry_does_not_go_through_a_staged_link(self, host: Host, area: str) -> None:
        with pytest.raises(HostError, match="symbolic link"):
            await host.stage(f"{area}/pod", [StagedLink("link", "/tmp"), StagedFile("link/file", b"")])
        assert await host.list_directory(area) == ()

    async def test_a_parent_that_is_a_link_is_refused(self, host: Host, area: str) -> None:
        await shell(host, 'mkdir -m 700 "$1/real"; ln -s real "$1/link"', area)
        for path in (f"{area}/link/pod", f"{area}/link"):
            with pytest.raises(HostError, match=r"link: (is|exists and is) a symbolic link"):
                await host.stage(path, [StagedFile("a", b"")])
        assert await host.list_directory(f"{area}/real") == ()

    async def test_a_parent_that_others_may_write_to_is_refused(self, host: Host, area: str) -> None:
        await shell(
            host, 'mkdir -m 777 "$1/open"; mkdir -m 1777 "$1/sticky"; chmod 777 "$1/open"; chmod 1777 "$1/sticky"', area
        )
        with pytest.raises(HostError, match=r"open: is writable by others \(mode 0777\)"):
            await host.stage(f"{area}/open/pod", [])
        assert await host.stage(f"{area}/sticky/pod", [])

    async def test_another_users_directory_is_refused(self, host: Host, foreign: str) -> None:
        for path in (foreign, f"{foreign}/pod"):
            with pytest.raises(HostError, match="another user"):
                await host.stage(path, [StagedFile("a", b"")])

    # Files

    async def test_a_link_is_swapped(self, host: Host, area: str) -> None:
        for target in ("one", "two", "../π"):
            await host.swap_link(f"{area}/link", target)
            assert (await host.run(["readlink", f"{area}/link"], timeout=60)).stdout.decode() == f"{target}\n"
        assert await host.list_directory(area) == ("link",)

    async def test_only_a_link_becomes_a_link(self, host: Host, area: str) -> None:
        await host.write(f"{area}/file", b"mine")
        with pytest.raises(HostError, match="no symbolic link"):
            await host.swap_link(f"{area}/file", "x")
        assert await host.read(f"{area}/file") == b"mine"

    async def test_a_file_is_written_whole(self, host: Host, area: str) -> None:
        data = bytes(range(256)) * 40_000
        await host.write(f"{area}/file", b"old")
        assert await mode(host, f"{area}/file") == "600"
        await host.write(f"{area}/file", data, mode=0o500)
        assert await host.read(f"{area}/file") == data
        assert await mode(host, f"{area}/file") == "500"
        assert await host.list_directory(area) == ("file",)

    async def test_writing_where_there_is_no_directory_is_an_error(self, host: Host, area: str) -> None:
        with pytest.raises(HostError, match="missing: No such file or directory"):
            await host.write(f"{area}/missing/file", b"")

    async def test_a_file_is_read_in_parts(self, host: Host, area: str) -> None:
        await host.write(f"{area}/file", b"0123456789")
        assert await host.read(f"{area}/file", offset=3) == b"3456789"
        assert await host.read(f"{area}/file", offset=3, limit=4) == b"3456"
        assert await host.read(f"{area}/file", limit=0) == b""
        assert await host.read(f"{area}/file", offset=100) == b""

    async def test_no_file_is_none(self, host: Host, area: str) -> None:
        assert await host.read(f"{area}/missing") is None
        assert await host.read(f"{area}/missing/file") is None
        assert await host.list_directory(f"{area}/missing") is None

    async def test_reading_never_follows_a_link_or_waits_for_a_fifo(self, host: Host, area: str) -> None:
        await shell(host, 'ln -s /etc/passwd "$1/link"; mkfifo "$1/fifo"; mkdir "$1/directory"', area)
        for name, words in (("link", "symbolic link"), ("fifo", "no regular file"), ("directory", "no regular file")):
            with pytest.raises(HostError, match=words):
                await host.read(f"{area}/{name}")

    async def test_a_path_is_absolute_and_plain(self, host: Host) -> None:
        for path in ("relative", "/a/../b", "/a//b", "/"):
            with pytest.raises(HostError, match="path"):
                await host.read(path)
            with pytest.raises(HostError, match="path"):
                await host.remove_tree(path)

    async def test_names_come_sorted_whatever_they_are(self, host: Host, area: str) -> None:
        names = ("a", "B", "ü", "line\nbreak", "\udcfe", " ")
        await host.stage(f"{area}/d", [StagedFile(name, b"") for name in names])
        assert await host.list_directory(f"{area}/d") == tuple(sorted(names))

    async def test_a_tree_is_removed_whatever_is_in_it(self, host: Host, area: str) -> None:
        await host.write(f"{area}/kept", b"kept")
        script = """
        mkdir "$1/tree"; cd "$1/tree"; ln -s .. up; ln -s ../kept kept; mkfifo fifo
        mkdir -p locked/inner; echo x > locked/inner/file; chmod 0 locked/inner; chmod 500 locked
        i=0; while [ $i -lt 600 ]; do mkdir d; echo x > f; cd d; i=$((i+1)); done
        """
        await shell(host, script, area)
        await host.remove_tree(f"{area}/tree")
        assert await host.list_directory(area) == ("kept",)
        await host.remove_tree(f"{area}/tree")

    async def test_a_link_is_no_tree(self, host: Host, area: str) -> None:
        await shell(host, 'mkdir "$1/real"; echo x > "$1/real/file"; ln -s real "$1/link"', area)
        with pytest.raises(HostError, match="symbolic link"):
            await host.remove_tree(f"{area}/link")
        assert await host.list_directory(f"{area}/real") == ("file",)

    # Followers

    async def test_a_file_is_followed_from_where_one_asks(self, host: Host, area: str) -> None:
        await host.write(f"{area}/log", b"0123456789")
        async with contextlib.aclosing(host.follow(f"{area}/log", offset=4)) as stream:
            assert await take(stream, 6) == b"456789"
            await shell(host, 'printf more >> "$1/log"', area)
            assert await take(stream, 4) == b"more"

    async def test_a_file_shorter_than_where_one_asks_is_another_one_and_is_followed_from_its_beginning(
        self, host: Host, area: str
    ) -> None:
        await host.write(f"{area}/log", b"new")  # the one that was read up to 1000 was rotated away
        async with contextlib.aclosing(host.follow(f"{area}/log", offset=1000)) as stream:
            assert await take(stream, 3) == b"new"

    async def test_a_file_may_come_later_than_its_follower(self, host: Host, area: str) -> None:
        async with contextlib.aclosing(host.follow(f"{area}/later/log")) as stream:
            first = asyncio.ensure_future(take(stream, 2))
            await shell(host, 'mkdir "$1/later"; printf hi > "$1/later/log"', area)
            assert await first == b"hi"

    async def test_what_is_written_is_seen_within_a_tenth_of_a_second(self, host: Host, area: str) -> None:
        delays = []
        script = 'while read line; do echo "$line" >> "$1/log"; echo; done'
        async with (
            host.process(["sh", "-c", script, "sh", area]) as writer,
            contextlib.aclosing(host.follow(f"{area}/log")) as stream,
        ):
            for _ in range(9):
                await writer.write(b"x\n")
                await writer.read()
                began = time.monotonic()
                assert await take(stream, 2) == b"x\n"
                delays.append(time.monotonic() - began)
        assert statistics.median(delays) < 0.1

    async def test_a_replaced_file_is_read_to_its_end_then_the_new_one(self, host: Host, area: str) -> None:
        await host.write(f"{area}/log", b"old,")
        async with contextlib.aclosing(host.follow(f"{area}/log")) as stream:
            assert await take(stream, 4) == b"old,"
            await shell(host, 'cd "$1"; printf rest, >> log; mv log log.1; printf new > log', area)
            assert await take(stream, 8) == b"rest,new"

    async def test_a_slow_follower_gets_everything_in_the_end(self, host: Host, area: str) -> None:
        data = bytes(range(256)) * 60_000
        await host.write(f"{area}/log", data)
        async with contextlib.aclosing(host.follow(f"{area}/log")) as stream:
            first = await take(stream, 1)
            assert (await host.run(["true"], timeout=60)).exit_code == 0
            assert first + await take(stream, len(data) - len(first)) == data

    async def test_many_followers_at_once(self, host: Host, area: str) -> None:
        async with contextlib.AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(contextlib.aclosing(host.follow(f"{area}/{n}"))) for n in range(100)
            ]
            takes = [asyncio.ensure_future(take(stream, 1)) for stream in streams]
            await shell(host, 'cd "$1"; for n in $(seq 0 99); do printf "%03d" $n > $n; done', area)
            assert [int(data) for data in await asyncio.gather(*takes)] == list(range(100))

    async def test_following_what_cannot_be_read_is_an_error(self, host: Host, area: str) -> None:
        with pytest.raises(HostError, match="no regular file"):
            await take(host.follow(area), 1)

    # The connection

    async def test_calls_under_way_learn_that_the_agent_died_and_the_next_one_recovers(
        self, host: Host, area: str
    ) -> None:
        slow = asyncio.ensure_future(host.run(["sleep", "300"], timeout=600))
        async with host.process(["cat"]) as process, contextlib.aclosing(host.follow(f"{area}/log")) as stream:
            await process.write(b"x")
            assert await process.read() == b"x"
            waiting = [slow, *map(asyncio.ensure_future, (process.read(), process.wait(), anext(stream)))]
            with pytest.raises(TransportError):
                await host.run(["sh", "-c", "kill -9 $PPID"], timeout=60)
            for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(outcome, TransportError)
            with pytest.raises(TransportError):
                await process.write(b"x")
        assert (await host.run(["echo", "again"], timeout=60)).stdout == b"again\n"

    async def test_closing_kills_what_was_started(self, make_host: MAKE, host: Host, area: str) -> None:
        other = make_host()
        call = asyncio.ensure_future(other.run(["sh", "-c", 'echo $$ > "$1/run"; sleep 300', "sh", area], timeout=600))
        async with contextlib.AsyncExitStack() as stack:
            process = await stack.enter_async_context(other.process(["sh", "-c", "echo $$; sleep 300"]))
            pids = [int(await content(host, f"{area}/run")), int(await process.read())]
            await other.close()
            with pytest.raises(TransportError):
                await call
        for pid in pids:
            await until_gone(host, pid)
        with pytest.raises(TransportError, match="closed"):
            await other.run(["true"], timeout=60)
