"""
What behaviours of a scripted server are made of, see web.py: answers well formed or not, and when
each is given. Which of them the campaign has, and why: behaviours.py.

Source: RFC 9110.
"""

from collections.abc import Awaitable, Callable

from tools.faults.web import Exchange, head

Behaviour = Callable[[Exchange], Awaitable[None]]


# When


def once(bad: Behaviour) -> Behaviour:
    """The first request of a case meets it, the later ones the good server."""

    async def behave(exchange: Exchange) -> None:
        await (exchange.good() if exchange.number else bad(exchange))

    return behave


def resumed(bad: Behaviour) -> Behaviour:
    """The first request is cut in the middle; those with a range meet it then."""

    async def behave(exchange: Exchange) -> None:
        if not exchange.number:
            await at_half(Exchange.close)(exchange)
        else:
            await (bad(exchange) if exchange.request.start else exchange.good())

    return behave


def second(bad: Behaviour) -> Behaviour:
    """The first request is cut in the middle, the second one meets it, the later ones are good."""

    async def behave(exchange: Exchange) -> None:
        cut = at_half(Exchange.close)
        await (cut, bad, Exchange.good)[min(exchange.number, 2)](exchange)

    return behave


def at_half(end: Behaviour) -> Behaviour:
    """No request gets further than to the middle of the file."""

    async def behave(exchange: Exchange) -> None:
        half = len(exchange.content) // 2
        await exchange.send(exchange.good_head() + exchange.content[exchange.request.start : half])
        await end(exchange)

    return behave


# What


def says(*pieces: bytes, then: Behaviour = Exchange.close) -> Behaviour:
    """These bytes, whatever was asked."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"".join(pieces))
        await then(exchange)

    return behave


def status(line: str, *headers: str) -> Behaviour:
    """An answer without a body."""
    return says(head(line, "Content-Length: 0", *headers))


def whole(*headers: str, line="200 OK", body: Callable[[bytes], bytes] = bytes) -> Behaviour:
    """
    All of the file, or what body makes of it, whatever range was asked for. headers: {size} and
    {last} stand for the file's size and last byte, {sent} for the body's size.
    """

    async def behave(exchange: Exchange) -> None:
        size = len(exchange.content)
        sent = body(exchange.content)
        numbers = {"size": size, "last": size - 1, "sent": len(sent)}
        lines = [header.format(**numbers) for header in headers]
        await exchange.send(head(line, *lines) + sent)

    return behave


def part(span: str, shift: int = 0) -> Behaviour:
    """
    A 206 from where it was asked for. span: of Content-Range, "" = none, {start}, {last}, {size}
    and {later} (start + 1) stand for numbers; shift: bytes by which the body begins earlier.
    """

    async def behave(exchange: Exchange) -> None:
        start, size = exchange.request.start, len(exchange.content)
        body = exchange.content[start - shift : size - shift]
        told = span.format(start=start, later=start + 1, last=size - 1, size=size)
        headers = [f"Content-Length: {len(body)}", *([f"Content-Range: {told}"] if told else [])]
        await exchange.send(head("206 Partial Content", *headers) + body)

    return behave


def other_file(change: Callable[[bytes], bytes]) -> Behaviour:
    """A good server, of another file."""

    async def behave(exchange: Exchange) -> None:
        exchange.content = change(exchange.content)
        await exchange.good()

    return behave


def from_second(behaviour: Behaviour) -> Behaviour:
    """The first request is cut in the middle, all later ones meet the behaviour."""

    async def behave(exchange: Exchange) -> None:
        await (behaviour if exchange.number else at_half(Exchange.close))(exchange)

    return behave


REDIRECTS = {
    301: "301 Moved Permanently",
    302: "302 Found",
    303: "303 See Other",
    307: "307 Temporary Redirect",
    308: "308 Permanent Redirect",
}


def redirect(
    to: str, hops: int = 1, line: str = REDIRECTS[302], name: str = "Location"
) -> Behaviour:
    """
    So many redirects, then the good server. to: {path} stands for the file's path with the number
    of hops in its query, {file} for that without a slash, {port} for the server's port.
    """

    async def behave(exchange: Exchange) -> None:
        path, _, hop = exchange.request.path.partition("?")
        hop = int(hop or 0)
        if hop >= hops:
            await exchange.good()
            return
        path = f"{path}?{hop + 1}"
        port = exchange.request.headers["host"].rpartition(":")[2]
        location = to.format(path=path, file=path[1:], port=port)
        await status(line, f"{name}: {location}")(exchange)

    return behave


def endless(start: bytes, piece: bytes) -> Behaviour:
    """Never comes to an end."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(start)
        while True:
            await exchange.send(piece)

    return behave


def retold(change: Callable[[bytes], bytes], then: Behaviour = Exchange.close) -> Behaviour:
    """The good server, but for its head, which change() makes another one of."""

    async def behave(exchange: Exchange) -> None:
        told = change(exchange.good_head())
        await exchange.send(told + exchange.content[exchange.request.start :])
        await then(exchange)

    return behave


async def byte_by_byte(exchange: Exchange) -> None:
    """Head, the first 600 bytes of the body and its last 600 as segments of one byte each."""
    data = exchange.good_head() + exchange.content[exchange.request.start :]
    edge = len(exchange.good_head()) + 600
    pieces = [data[at : at + 1] for at in range(edge)]
    pieces += [data[edge:-600], *(data[at : at + 1] for at in range(len(data) - 600, len(data)))]
    for piece in pieces:
        await exchange.send(piece)
        await exchange.pause(0)


async def slow_head(exchange: Exchange) -> None:
    """The head, a byte every 0.3 s: more than 20 s in all."""
    for byte in exchange.good_head():
        await exchange.send(bytes([byte]))
        await exchange.pause(0.3)


async def short_pauses(exchange: Exchange) -> None:
    """Three pauses of the body, each shorter than stall_s."""
    content, start = exchange.content, exchange.request.start
    await exchange.send(exchange.good_head())
    piece = max((len(content) - start) // 4, 1)
    for at in range(start, len(content), piece):
        await exchange.send(content[at : at + piece])
        await exchange.pause(0.3)
