"""A TCP proxy between two parts, on loopback, that does to connections what networks do: cut, delay, freeze, truncate."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator


class Proxy:
    """Listens on a free loopback port for one target, or on a unix socket (``listen``) for another. ``cut`` drops every connection and refuses new ones.

    The other faults, but ``slow``, are for the connections there are; those that come after are sound.
    """

    def __init__(self, target: str, port: int = 0, *, listen: str = "") -> None:
        self._target = (target, port)
        self._listen = listen
        self._open = True
        self._slowness = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._pipes: set[_Pipe] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self.port = 0
        self.carried = 0  # bytes, both ways
        self.accepted = 0  # connections

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        if self._listen:
            server = self._loop.run_until_complete(asyncio.start_unix_server(self._accept, self._listen))
        else:
            server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
            self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        for task in self._connections:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._connections, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # what was aborted is closed in the loop's next round
        self._loop.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair, pipes, copies = {writer}, set[_Pipe](), list[asyncio.Task[None]]()
        target, port = self._target
        try:
            if not self._open:
                return
            self.accepted += 1
            far = asyncio.open_connection(target, port) if port else asyncio.open_unix_connection(target)
            far_reader, far_writer = await far
            pair.add(far_writer)
            pipes = {_Pipe(reader, far_writer, self._carry), _Pipe(far_reader, writer, self._carry, answers=True)}
            for pipe in pipes:
                pipe.delay = self._slowness
            self._writers |= pair
            self._pipes |= pipes
            copies = [asyncio.create_task(pipe.copy()) for pipe in pipes]
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # nobody listens there: the caller hears it by the end of the connection
        finally:
            for task in copies:
                task.cancel()
            self._writers -= pair
            self._pipes -= pipes
            for one in pair:
                one.transport.abort()
            await asyncio.gather(*copies, return_exceptions=True)

    def _carry(self, count: int) -> None:
        self.carried += count

    def cut(self) -> None:
        """Drop every connection, and refuse new ones until `join`."""
        self._open = False
        self.reset()

    def reset(self) -> None:
        """Drop every connection."""

        def drop() -> None:
            for writer in tuple(self._writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(drop)

    def freeze(self) -> None:
        """Let nothing through any more, and say nothing of it: half-open connections, as a router's restart leaves."""

        def freeze() -> None:
            for pipe in self._pipes:
                pipe.frozen = True

        self._loop.call_soon_threadsafe(freeze)

    def delay(self, seconds: float) -> None:
        """Let each piece wait so long from now on."""

        def delay() -> None:
            for pipe in self._pipes:
                pipe.delay = seconds

        self._loop.call_soon_threadsafe(delay)

    def truncate(self, count: int) -> None:
        """Let so many more bytes through in each direction, in mid-message, and drop the connection then."""

        def truncate() -> None:
            for pipe in self._pipes:
                pipe.left = count

        self._loop.call_soon_threadsafe(truncate)

    def swallow(self, count: int) -> None:
        """Let requests through, and drop each connection when so many bytes of an answer have come: the deed is done."""

        def swallow() -> None:
            for pipe in self._pipes:
                if pipe.answers:
                    pipe.left = count

        self._loop.call_soon_threadsafe(swallow)

    def slow(self, seconds: float) -> None:
        """Let each piece wait so long, of the connections that come after, too."""
        self._slowness = seconds
        self.delay(seconds)

    def join(self) -> None:
        """Let connections through again."""
        self._open = True

    @contextlib.contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Start; stop at the end."""
        self._thread.start()
        assert self._started.wait(10)
        yield self
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class _Pipe:
    """One direction of one connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Callable[[int], None],
        *,
        answers: bool = False,
    ) -> None:
        self._reader = reader
        self._count = count
        self.answers = answers
        self._writer = writer
        self.delay = 0.0
        self.frozen = False
        self.left: int | None = None
        self._thawed = asyncio.Event()  # never set; kept, lest whoever waits for it is collected as garbage

    async def copy(self) -> None:
        """Carry bytes until one side ends."""
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.frozen:
                    await self._thawed.wait()
                if self.left is not None:
                    data = data[: self.left]
                    self.left -= len(data)
                self._count(len(data))
                self._writer.write(data)
                await self._writer.drain()
                if self.left == 0:
                    return
