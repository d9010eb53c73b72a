"""
Tests of the guidance's three calls about a download: is_fetching, fetch_finish, fetch_yield.

Source of the expected values: the guidance's descriptions of the calls, the codes in
docs/protocol.md.
"""

from agents import AgentCase
from fakes import forget
from files import sign_of

BODY = b"0123456789abcdef" * 64
SIGN = sign_of([BODY])


class FetchingTests(AgentCase):
    def test_false_before_a_download(self):
        agent = self.ready()
        self.assertIs(agent.is_fetching(), False)
        self.assertIs(agent.fetch_finish(), False)

    def test_poll_downloads(self):
        agent = self.ready()
        self.net.script(1)
        self.command()
        self.poll()
        self.assertIs(agent.is_fetching(), True)
        self.assertIs(agent.fetch_finish(), False)

    def test_fetch_yield_downloads(self):
        agent = self.ready()
        self.serve(BODY)
        self.command(sign=SIGN, size=len(BODY))
        self.client.check_msg()
        agent.fetch_yield(bytearray(16), 1)
        self.assertIs(agent.is_fetching(), True)
        self.assertIs(agent.fetch_finish(), False)

    def test_ended_by_a_failure(self):
        agent = self.ready(tries=0)
        self.command()
        self.poll(3)
        self.assertIs(agent.is_fetching(), False)
        self.assertIs(agent.fetch_finish(), True)

    def test_ended_by_cancel(self):
        agent = self.ready()
        self.net.script(1)
        self.command()
        self.poll()
        agent.cancel()
        self.assertIs(agent.is_fetching(), False)
        self.assertIs(agent.fetch_finish(), True)

    def test_another_download_begins_anew(self):
        agent = self.ready(tries=0)
        self.command()
        self.poll(3)
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
        self.command("m2")
        self.poll(3)
        self.assertIs(agent.fetch_finish(), False)


class FetchYieldTests(AgentCase):
    def fetch(self, size=100, sign=SIGN, length=None, **settings):
        # Agent with a command that waits for fetch_yield, and a buffer.
        self.ready(**settings)
        self.command(sign=sign, size=length or len(BODY))
        self.client.check_msg()
        return self.agent, bytearray(size)

    def all(self, agent, buf):
        # What fetch_yield gives until it returns a negative number, and that number.
        got = b""
        for _ in range(200):
            n = agent.fetch_yield(buf, 1)
            if n < 0:
                return got, n
            got += buf[:n]
        self.fail("never ends")

    def test_gives_all_bytes_then_minus_one(self):
        agent, buf = self.fetch()
        self.serve(BODY)
        self.assertEqual(self.all(agent, buf), (BODY, -1))
        self.assertIs(agent.fetch_finish(), True)
        self.assertIs(agent.is_fetching(), False)

    def test_answers_the_command_before_it_downloads(self):
        agent, buf = self.fetch()
        self.serve(BODY)
        agent.fetch_yield(buf, 1)
        self.assertEqual(self.replies(), [("m1", 200)])

    def test_buffer_larger_than_the_file(self):
        agent, buf = self.fetch(size=4096)
        self.serve(BODY)
        self.assertEqual(self.all(agent, buf), (BODY, -1))

    def test_writes_no_flash(self):
        from ota.slot import running

        other = running().get_next_update()
        before = bytearray(64)
        other.readblocks(0, before, 0)
        self.test_gives_all_bytes_then_minus_one()
        after = bytearray(64)
        other.readblocks(0, after, 0)
        self.assertEqual(before, after)
        self.assertEqual(self.machine.resets, 0)

    def test_zero_when_none_come_in_time(self):
        agent, buf = self.fetch()
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n")
        for timeout_s in (0, 1, 3):
            before = self.clock.now
            self.assertEqual(agent.fetch_yield(buf, timeout_s), 0)
            waited = self.clock.since(before)
            self.assertTrue(waited <= timeout_s * 1000 + 200, waited)

    def test_waits_for_what_comes_within_the_time(self):
        agent, buf = self.fetch()
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n", 1500, BODY)
        self.assertEqual(agent.fetch_yield(buf, 2), 100)

    def test_other_digest_is_minus_440(self):
        agent, buf = self.fetch(sign="0" * 32)
        self.serve(BODY)
        self.assertEqual(self.all(agent, buf), (BODY, -440))
        self.poll(2)
        self.assertEqual(self.progress()[-1], ("failed", 0, 440))

    def test_download_that_fails_is_its_code(self):
        for script, code in (
            ([OSError(113)], -430),
            ([b"HTTP/1.0 404 Not Found\r\n\r\n"], -431),
            ([b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", b"x"], -433),
        ):
            forget()
            agent, buf = self.fetch(tries=0)
            self.net.script(*script)
            self.assertEqual(self.all(agent, buf), (b"", code), script)
            self.assertIs(agent.is_fetching(), False)

    def test_https_is_minus_435(self):
        self.ready()
        self.command(url="https://host/f")
        self.client.check_msg()
        self.assertEqual(self.agent.fetch_yield(bytearray(8), 1), -435)

    def test_nothing_to_download_is_481(self):
        self.assertCode(481, self.ready().fetch_yield, bytearray(8), 1)

    def test_again_after_the_end_is_481(self):
        agent, buf = self.fetch()
        self.serve(BODY)
        self.all(agent, buf)
        self.assertCode(481, agent.fetch_yield, buf, 1)

    def test_while_poll_downloads_is_481(self):
        agent = self.ready()
        self.net.script(1)
        self.command()
        self.poll()
        self.assertCode(481, agent.fetch_yield, bytearray(8), 1)
        self.assertIs(agent.is_fetching(), True)

    def test_poll_leaves_the_download_alone(self):
        agent, buf = self.fetch()
        self.serve(BODY)
        while not agent.fetch_yield(buf, 1):
            pass
        self.poll(20)
        self.assertEqual(self.all(agent, buf), (BODY[100:], -1))

    def test_answers_while_it_downloads(self):
        agent, buf = self.fetch()
        self.serve(BODY)
        agent.fetch_yield(buf, 1)
        self.command("m2", "3.0")
        self.client.check_msg()
        agent.fetch_yield(buf, 1)
        self.client.check_msg()
        agent.fetch_yield(buf, 1)
        self.assertEqual(self.replies()[-1], ("m2", 413))

    def test_cancel_stops_it(self):
        agent, buf = self.fetch()
        self.serve(BODY)
        agent.fetch_yield(buf, 1)
        agent.cancel()
        self.assertCode(481, agent.fetch_yield, buf, 1)
        self.assertTrue(self.net.sockets[-1].closed)
