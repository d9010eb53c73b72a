"""
What a file server can do to an upgrade, and what the upgrade must come to.

BEHAVIOURS is the table: name to (behaviour, expected). expected is "Succeeded", or the set of
codes of ota/protocol.py of which the failure has one; every command tells the right size and MD5.
Rows keep no state, so one may serve any number of cases. cut_at and its like make the behaviours
that have a parameter; those remember what they did: a new one for each case.

The device has tries=2 (three connections that bring nothing, 1 s and 2 s between them), stall_s=1,
total_s=20, and 4 s from connect to the end of the headers. So what lasts for ever ends after 3 s;
where it is silent before the body after 15 s; "too slow" after 20 s. An answer below 500 without a
file ends it at once. Source: ota/download.py, ota/stream.py, docs/codes.md; RFC 9110, RFC 9112;
the device's requests 0.10.2 speaks HTTP/1.0.
"""

import gzip

from ota import protocol as p
from tools.faults import answers as a
from tools.faults import rewrites
from tools.faults.answers import Behaviour, once
from tools.faults.web import Exchange, head
from tools.platform.model import SUCCEEDED

_EVER = 1 << 30  # hops of a redirect loop


# With a parameter. n: a byte of the file. The first connection that gets there has the fault, all
# others have the good server.


def cut_at(n: int) -> Behaviour:
    """FIN in the place of byte n."""
    return first_at(n, Exchange.close)


def reset_at(n: int) -> Behaviour:
    """RST in the place of byte n, after the client's kernel got those before."""
    return first_at(n, Exchange.reset)


def stall_at(n: int) -> Behaviour:
    """In the place of byte n nothing more comes, until the client closes."""
    return first_at(n, Exchange.gone)


def cut_head_at(n: int) -> Behaviour:
    """The first connection has only n bytes of the answer's head, then FIN."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(exchange.good_head()[:n])

    return once(behave)


def drip(rate: int) -> Behaviour:
    """A good server with so many bytes a second, in up to 20 pieces."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(exchange.good_head())
        piece = max(rate // 20, 1)
        for at in range(exchange.request.start, len(exchange.content), piece):
            await exchange.send(exchange.content[at : at + piece])
            await exchange.pause(piece / rate)

    return behave


def first_at(n: int, end: Behaviour) -> Behaviour:
    """The first connection that gets to byte n comes to this end there, or goes on by it."""
    done = False

    async def behave(exchange: Exchange) -> None:
        nonlocal done
        start = exchange.request.start
        if done or not start <= n <= len(exchange.content):
            await exchange.good()
            return
        done = True
        await exchange.send(exchange.good_head() + exchange.content[start:n])
        await end(exchange)

    return behave


# The table

_LENGTH = "Content-Length: {size}"
_CHUNKED = "Transfer-Encoding: chunked"
_SPAN = "bytes {start}-{last}/{size}"
_OK = b"HTTP/1.1 200 OK\r\n"
_FINAL = ("204 No Content", "304 Not Modified", "400 Bad Request", "401 Unauthorized")
_FINAL += ("403 Forbidden", "404 Not Found", "410 Gone", "418 I'm a teapot")

BEHAVIOURS: dict[str, tuple[Behaviour, str | set[int]]] = {
    # Good ones, in all manners
    "200": (Exchange.good, SUCCEEDED),
    "header names in lower case": (a.retold(rewrites.lower_case), SUCCEEDED),
    "header names in lower case, resumed": (a.resumed(a.retold(rewrites.lower_case)), SUCCEEDED),
    "7 KiB of headers": (a.whole(_LENGTH, *[f"X-{i}: {'x' * 95}" for i in range(70)]), SUCCEEDED),
    # Of the headers only those that count are read.
    "header without a colon": (a.whole("garbage", _LENGTH), SUCCEEDED),
    "header that is no UTF-8": (a.whole(_LENGTH, "X: \xe9"), SUCCEEDED),
    "no length": (a.whole(), SUCCEEDED),
    "keep-alive, does not close": (a.retold(rewrites.keep_alive, then=Exchange.gone), SUCCEEDED),
    "206 of all of it, no range asked": (
        a.whole(_LENGTH, "Content-Range: bytes 0-{last}/{size}", line="206 Partial Content"),
        SUCCEEDED,
    ),
    "drips single bytes": (a.byte_by_byte, SUCCEEDED),
    "pauses of the body": (a.short_pauses, SUCCEEDED),
    # Statuses
    **{line: (a.status(line), {p._HTTP_STATUS}) for line in _FINAL},
    "416": (a.status("416 Range Not Satisfiable", "Content-Range: bytes */1"), {p._HTTP_STATUS}),
    "416, resumed": (a.resumed(a.status("416 Range Not Satisfiable")), SUCCEEDED),
    "500": (a.status("500 Internal Server Error"), {p._HTTP_STATUS}),
    "503": (a.status("503 Service Unavailable", "Retry-After: 1"), {p._HTTP_STATUS}),
    "503 once": (once(a.status("503 Service Unavailable")), SUCCEEDED),
    "503 once, resumed": (a.second(a.status("503 Service Unavailable")), SUCCEEDED),
    # The URL ran out: the device asks the platform for a new one, once.
    "403 once, resumed": (a.second(a.status("403 Forbidden")), SUCCEEDED),
    "403, resumed": (a.from_second(a.status("403 Forbidden")), {p._HTTP_STATUS}),
    "404, resumed": (a.from_second(a.status("404 Not Found")), {p._HTTP_STATUS}),
    "100 Continue first": (a.retold(lambda told: head("100 Continue") + told), {p._HTTP_STATUS}),
    # Lengths
    "short body once": (once(a.at_half(Exchange.close)), SUCCEEDED),
    "short body": (a.at_half(Exchange.close), {p._LENGTH}),
    "short body, no ranges": (a.whole(_LENGTH, body=rewrites.half), {p._LENGTH}),
    "short body, no length": (a.whole(body=rewrites.half), {p._LENGTH}),
    "short file": (a.whole("Content-Length: {sent}", body=rewrites.half), {p._LENGTH}),
    "empty file": (a.status("200 OK"), {p._LENGTH}),
    "long body": (a.whole(_LENGTH, body=rewrites.longer), SUCCEEDED),
    "long file": (a.whole("Content-Length: {sent}", body=rewrites.longer), {p._LENGTH}),
    "long file, no length": (a.whole(body=rewrites.longer), SUCCEEDED),
    "negative length": (a.whole("Content-Length: -{size}"), {p._LENGTH}),
    "length of 30 digits": (a.whole("Content-Length: " + "9" * 30), {p._LENGTH}),
    "length is a word": (a.whole("Content-Length: many"), {p._HTTP_STATUS}),
    "length is a fraction": (a.whole("Content-Length: {size}.0"), {p._HTTP_STATUS}),
    "length is nothing": (a.whole("Content-Length:"), {p._HTTP_STATUS}),
    "two lengths, equal": (a.whole(_LENGTH, _LENGTH), SUCCEEDED),
    # The last one counts; the MD5 decides.
    "two lengths, the last wrong": (a.whole(_LENGTH, "Content-Length: {last}"), {p._LENGTH}),
    "two lengths, the first wrong": (a.whole("Content-Length: {last}", _LENGTH), SUCCEEDED),
    # Chunks are not for HTTP/1.0. In lower case its library does not see them, and the file
    # begins with the size of the first one.
    "chunked": (a.whole(_CHUNKED, body=rewrites.chunked), {p._HTTP_STATUS}),
    "chunked, in lower case": (
        a.whole(_CHUNKED.lower(), body=rewrites.chunked),
        {p._NO_APPLICATION, p._HTTP_STATUS},
    ),
    "chunked, bad": (a.says(head("200 OK", _CHUNKED), b"zz\r\n\xe9\r\n"), {p._HTTP_STATUS}),
    "chunked, endless": (
        a.endless(head("200 OK", _CHUNKED), b"400\r\n%s\r\n" % bytes(1024)),
        {p._HTTP_STATUS},
    ),
    # Redirects
    **{
        f"redirect {code}": (a.redirect("http://127.0.0.1:{port}{path}", line=line), SUCCEEDED)
        for code, line in a.REDIRECTS.items()
    },
    "redirect, no host": (a.redirect("{path}"), SUCCEEDED),
    "redirect, in lower case": (a.redirect("{path}", name="location"), SUCCEEDED),
    "redirect, another host": (a.redirect("http://localhost:{port}{path}"), SUCCEEDED),
    "redirect, relative to the folder": (a.redirect("{file}"), {p._REDIRECT}),
    "redirect, another scheme": (a.redirect("ftp://127.0.0.1:{port}{path}"), {p._REDIRECT}),
    "redirect, https": (a.redirect("https://127.0.0.1:{port}{path}"), {p._NO_CA}),
    "redirect, nowhere": (a.status("302 Found"), {p._HTTP_STATUS}),
    "redirect, empty": (a.status("302 Found", "Location: "), {p._HTTP_STATUS}),
    "redirects, 3": (a.redirect("{path}", hops=3), SUCCEEDED),
    "redirects, 4": (a.redirect("{path}", hops=4), {p._REDIRECT}),
    "redirects, no end": (a.redirect("{path}", hops=_EVER), {p._REDIRECT}),
    # Ranges
    "206 of a part, no range asked": (
        a.whole("Content-Range: bytes 0-0/{size}", line="206 Partial Content"),
        {p._HTTP_STATUS},
    ),
    "206 of another range": (a.resumed(a.part("bytes {later}-{last}/{size}")), SUCCEEDED),
    "206 of another file's size": (a.resumed(a.part("bytes {start}-{last}/{later}")), SUCCEEDED),
    "206, size not told": (a.resumed(a.part("bytes {start}-{last}/*")), SUCCEEDED),
    "206, range not told": (a.resumed(a.part("")), SUCCEEDED),
    "206, body of another range": (a.resumed(a.part(_SPAN, shift=1)), SUCCEEDED),
    "200 to a range": (a.resumed(a.whole(_LENGTH)), SUCCEEDED),
    # Other bytes: in the first block they are no image, later the MD5 finds them.
    "other bytes": (a.other_file(rewrites.flipped), {p._NO_APPLICATION}),
    "other bytes behind the first block": (a.other_file(rewrites.flipped_later), {p._DIGEST}),
    "other last bit": (a.other_file(rewrites.last_bit), {p._DIGEST}),
    "other bytes, resumed": (a.resumed(a.other_file(rewrites.flipped)), SUCCEEDED),
    "file changes": (a.from_second(a.other_file(rewrites.flipped_later)), {p._DIGEST}),
    "file changes and grows": (a.from_second(a.other_file(rewrites.longer)), {p._LENGTH}),
    "gzip": (
        a.whole("Content-Encoding: gzip", "Content-Length: {sent}", body=gzip.compress),
        {p._LENGTH},
    ),
    "gzip, no length": (
        a.whole("Content-Encoding: gzip", body=gzip.compress),
        {p._LENGTH, p._MEMORY},  # it ends too early; or there is no room for its 32 KB window
    ),
    # No HTTP
    "HTTP/0.9": (a.retold(lambda told: b""), {p._HTTP_STATUS}),
    "another protocol": (a.says(b"SSH-2.0-x\r\n", then=Exchange.gone), {p._HTTP_STATUS}),
    "status is a word": (a.says(b"HTTP/1.1 OK\r\n\r\n"), {p._HTTP_STATUS}),
    "header of 64 KiB": (a.whole(_LENGTH, "X: " + "x" * 65536), {p._HTTP_STATUS}),
    "headers without end": (a.endless(_OK, b"X: %s\r\n" % (b"x" * 1000)), {p._HTTP_STATUS}),
    "status without end": (a.endless(b"HTTP/1.1 200 ", b"x" * 1000), {p._HTTP_STATUS}),
    "lines end in LF alone": (a.retold(rewrites.lf_alone), {p._HTTP_STATUS}),
    "a blank line too many": (a.whole(_LENGTH, ""), {p._NO_APPLICATION}),
    "status cut": (a.says(b"HTTP/1.1 2"), {p._NO_CONNECTION, p._HTTP_STATUS}),
    "headers cut": (a.says(_OK, b"Content-Le"), {p._NO_CONNECTION, p._HTTP_STATUS}),
    # Connections
    "closed before the status": (a.says(), {p._NO_CONNECTION, p._HTTP_STATUS}),
    "closed before the status once": (once(a.says()), SUCCEEDED),
    "status cut once": (once(a.says(b"HTTP/1.1 2")), SUCCEEDED),
    "headers cut once": (once(a.says(_OK, b"Content-Le")), SUCCEEDED),
    "length cut once": (once(a.says(_OK, b"Content-Length: 1")), SUCCEEDED),
    "reset before the status": (Exchange.reset, {p._NO_CONNECTION}),
    "reset before the status once": (once(Exchange.reset), SUCCEEDED),
    "reset in the body": (a.at_half(Exchange.reset), {p._NO_CONNECTION}),
    "reset in the body once": (once(a.at_half(Exchange.reset)), SUCCEEDED),
    "silent": (Exchange.gone, {p._NO_CONNECTION}),
    "silent once": (once(Exchange.gone), SUCCEEDED),
    "silent in the body": (a.at_half(Exchange.gone), {p._STALLED}),
    "silent in the body once": (once(a.at_half(Exchange.gone)), SUCCEEDED),
    "drips the head": (a.slow_head, {p._NO_CONNECTION}),
    "drips the body": (drip(300), {p._TOO_SLOW}),
}
