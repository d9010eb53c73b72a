"""
Tests of ota/protocol.py: messages as the platform sends them, and as it should not.

Source of the expected values: the field table and the codes in docs/protocol.md.
"""

import unittest

from ota.protocol import OTAError, command, decode

SIGN = "d41d8cd98f00b204e9800998ecf8427e"
GOOD = {
    "policy": "standard",
    "size": 4096,
    "firmwareVersion": "1.1.0",
    "url": "http://host:8080/file.bin",
    "sign": SIGN,
    "signMethod": "Md5",
}
GONE = object()


def changed(**fields):
    # GOOD with other fields; GONE takes one away.
    data = dict(GOOD)
    data.update(fields)
    return {k: v for k, v in data.items() if v is not GONE}


def code_of(call, *arguments):
    # The code of the OTAError that the call raises, None when it raises none.
    try:
        call(*arguments)
    except OTAError as e:
        return e.code
    return None


class DecodeTests(unittest.TestCase):
    def test_good_messages(self):
        long_id = "i" * 64
        for payload, expected in (
            (b'{"msgId":"1","version":"1.0","data":{}}', ("1", None, {})),
            (b'{"msgId ":"7"," data ":{"a ":1}}', ("7", None, {"a ": 1})),
            (b'{"msgId":42,"data":{}}', ("42", None, {})),
            (b'{"msgId":0,"data":{}}', ("0", None, {})),
            (b'{"data":{}}', ("", None, {})),
            (b'{"msgId":"1"}', ("1", None, None)),
            (b'{"msgId":"1","code":404,"message":"none"}', ("1", 404, None)),
            (b'{"msgId":"1","data":[1],"new":{"deep":[{}]}}', ("1", None, [1])),
            (b' \r\n{"msgId":"1"}\n', ("1", None, None)),
            (b'{"msgId":"%s"}' % long_id.encode(), (long_id, None, None)),
        ):
            self.assertEqual(decode(payload), expected)

    def test_what_is_no_message(self):
        for payload in (
            b"",
            b"hello",
            b"[]",
            b"null",
            b"17",
            b'"text"',
            b'{"msgId":"1","data":{}',
            b'{"msgId":"1"} {',
            b'{"msgId":null}',
            b'{"msgId":true}',
            b'{"msgId":1.5}',
            b'{"msgId":["1"]}',
            b'{"msgId":{"1":1}}',
            b'{"msgId":"%s"}' % (b"i" * 65),
            b'{"msgId":"%s"}' % (b" " * 65),
            b'{"msgId":%s}' % (b"1" * 65),
            b'{"msgId":"\xff\xfe"}',
            b"\x00\x01\x02",
            b'{1:"a"}',
        ):
            self.assertEqual(code_of(decode, payload), 410, payload)

    def test_longest_message_and_one_byte_more(self):
        payload = b'{"msgId":"1","data":"' + b"x" * (16384 - 23) + b'"}'
        self.assertEqual(len(payload), 16384)
        self.assertEqual(len(decode(payload)[2]), 16384 - 23)
        self.assertEqual(code_of(decode, payload + b" "), 410)

    def test_nested_deeper_than_memory(self):
        for payload in (b"[" * 16384, b'{"a":' * 3000):
            self.assertEqual(code_of(decode, payload), 410, payload[:5])


class CommandTests(unittest.TestCase):
    def test_all_fields(self):
        found = command("5", GOOD, False)
        self.assertEqual(found.msg_id, "5")
        self.assertEqual(found.version, "1.1.0")
        self.assertEqual(found.url, "http://host:8080/file.bin")
        self.assertEqual(found.sign, SIGN)
        self.assertEqual(found.size, 4096)
        self.assertIs(found.silent, False)

    def test_stray_blanks_and_other_case(self):
        data = {
            "policy ": " Silent ",
            " size": 1,
            " firmwareVersion ": " 1.1.0 ",
            "url\n": " http://host/f ",
            "sign": " " + SIGN.upper() + " ",
            "signMethod": " MD5",
        }
        found = command("5", data, False)
        self.assertIs(found.silent, True)
        self.assertEqual(found.size, 1)
        self.assertEqual(found.version, "1.1.0")
        self.assertEqual(found.url, "http://host/f")
        self.assertEqual(found.sign, SIGN)

    def test_answer_without_policy_and_size(self):
        found = command("5", changed(policy=GONE, size=GONE), True)
        self.assertIs(found.silent, True)
        self.assertEqual(found.size, 0)
        self.assertIs(command("5", GOOD, True).silent, False)
        self.assertEqual(command("5", GOOD, True).size, 4096)

    def test_bounds_that_hold(self):
        for fields in (
            {"firmwareVersion": "v" * 100},
            {"firmwareVersion": "a-Z_0.9"},
            {"url": "https://host/f"},
            {"url": "http://[::1]:80/a%20b?c=d&e=(f)#g"},
            {"url": "http://host/" + "f" * 1012},
            {"size": 1 << 30},
            {"unknown": [{}]},
        ):
            self.assertIsNone(code_of(command, "5", changed(**fields), False), fields)

    def test_bad_fields(self):
        for fields, code in (
            ({"size": GONE}, 410),
            ({"size": 0}, 410),
            ({"size": -1}, 410),
            ({"size": "4096"}, 410),
            ({"size": 4096.0}, 410),
            ({"size": True}, 410),
            ({"size": None}, 410),
            ({"firmwareVersion": GONE}, 410),
            ({"firmwareVersion": ""}, 410),
            ({"firmwareVersion": "  "}, 410),
            ({"firmwareVersion": 1.1}, 410),
            ({"firmwareVersion": "v" * 101}, 410),
            ({"firmwareVersion": "1.1 beta"}, 410),
            ({"firmwareVersion": "1/1"}, 410),
            ({"firmwareVersion": "1\u00e9"}, 410),
            ({"sign": GONE}, 410),
            ({"sign": ""}, 410),
            ({"sign": 7}, 410),
            ({"sign": SIGN[1:]}, 410),
            ({"sign": SIGN + "0"}, 410),
            ({"sign": SIGN + "00"}, 410),
            ({"sign": "g" + SIGN[1:]}, 410),
            ({"sign": "\u00e9" + SIGN[1:]}, 410),
            ({"sign": "0x" + SIGN[2:]}, 410),
            ({"sign": "+" + SIGN[1:]}, 410),
            ({"sign": "-" + SIGN[1:]}, 410),
            ({"sign": "d_" + SIGN[2:]}, 410),
            ({"sign": SIGN[1:] + "\n"}, 410),
            ({"sign": SIGN[:16] + "  " + SIGN[18:]}, 410),
            ({"policy": GONE}, 410),
            ({"policy": 1}, 410),
            ({"policy": ""}, 411),
            ({"policy": "forced"}, 411),
            ({"signMethod": GONE}, 410),
            ({"signMethod": None}, 410),
            ({"signMethod": ""}, 412),
            ({"signMethod": "Sha256"}, 412),
            ({"url": GONE}, 410),
            ({"url": ["http://host/f"]}, 410),
            ({"url": ""}, 414),
            ({"url": "ftp://host/f"}, 414),
            ({"url": "httpx://host/f"}, 414),
            ({"url": "http:host/f"}, 414),
            ({"url": "//host/f"}, 414),
            ({"url": "host/f"}, 414),
            ({"url": "file:///etc/f"}, 414),
            ({"url": "http://host/a b"}, 414),
            ({"url": "http://host/f\r\nX-Other: 1"}, 414),
            ({"url": "http://host/\x7f"}, 414),
            ({"url": "http://host/\u00e9"}, 414),
            ({"url": "http://host/" + "f" * 1013}, 414),
        ):
            self.assertEqual(code_of(command, "5", changed(**fields), False), code, fields)

    def test_answer_is_checked_as_well(self):
        for fields, code in (
            ({"size": -1}, 410),
            ({"size": "1"}, 410),
            ({"policy": "forced"}, 411),
            ({"policy": None}, 410),
            ({"sign": GONE}, 410),
            ({"url": "ftp://host/f"}, 414),
        ):
            self.assertEqual(code_of(command, "5", changed(**fields), True), code, fields)

    def test_data_that_is_no_object(self):
        for data in (None, [], "text", 7, True, [GOOD]):
            self.assertEqual(code_of(command, "5", data, False), 410, data)

    def test_no_msg_id(self):
        self.assertEqual(code_of(command, "", GOOD, False), 410)


class ErrorTests(unittest.TestCase):
    def test_code_and_detail(self):
        e = OTAError(431, 404)
        self.assertIsInstance(e, Exception)
        self.assertEqual((e.code, e.detail), (431, 404))
        self.assertEqual(OTAError(410).detail, 0)
